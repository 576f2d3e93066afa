"""Reports, the paragraph, exported tables, models side by side."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import jaxmed as jm
from jaxmed.errors import InputError
from jaxmed.report import citations, descriptives, export, prose

# few draws are enough here, and few draws are warned of
pytestmark = pytest.mark.filterwarnings("ignore::jaxmed.errors.JaxmedWarning")


@pytest.fixture(scope="module")
def fit():
    data = jm.datasets.split_model(n_clusters=30).data
    data = data.rename(columns={"m": "m<1>"})  # a name that would break a page that does not escape
    return jm.mediate(data, x="x", m="m<1>", y="y", cluster="id", random=["a"], covariance="by_equation")


@pytest.fixture(scope="module")
def boot(fit):
    return fit.bootstrap(60, seed=5, progress=False)


@pytest.fixture(scope="module")
def moderated():
    data = jm.datasets.moderated_model(n_clusters=40).data
    roles = {"x": "x", "m": ["m1", "m2"], "y": "y", "cluster": "id"}
    fit = jm.mediate(data, **roles, moderators={"a": "w", "b": "v"}, covariance="diagonal")
    return fit.bootstrap(60, seed=2, progress=False)


@pytest.fixture(scope="module")
def lmm():
    return jm.lmm("m ~ x + (1 | id)", jm.datasets.split_model(n_clusters=20).data)


class Page(HTMLParser):
    """Tags, attributes and text of a page; that every tag is closed in order."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.words = [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return "".join(self.words)


def written(result, folder):
    path = result.report(folder / "report.html")
    assert path.is_file()
    return path.read_text(encoding="utf-8")


# --- The page -------------------------------------------------------------------------------------------------------


def test_a_report_is_whole_and_needs_nothing_from_elsewhere(fit, boot, moderated, lmm, tmp_path):
    for result in (fit, boot, moderated, lmm, lmm.bootstrap(30, seed=1, progress=False)):
        source = written(result, tmp_path)
        page = Page(source)
        for tag, name, value in page.attributes:
            if name in ("src", "href"):
                assert value.startswith("data:"), (tag, value[:60])
        assert "<script" not in source
        assert "@import" not in source
        assert "url(" not in source
        assert "http" not in page.text
        images = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
        assert len(images) >= 2
        assert len([1 for tag, name, value in page.attributes if (tag, name) == ("img", "alt") and value]) == len(images)
        for heading in ("Model", "Results", "Figures", "Diagnostics", "What to cite", "How to reproduce"):
            assert f"<h2>{heading}</h2>" in source


def test_a_report_says_what_was_done(boot, tmp_path):
    page = Page(written(boot, tmp_path))
    text = page.text
    assert "x acts on y directly and through m<1>: a 1-1-1 design, 30 clusters of id" in text
    assert "the slopes of a[m<1>]" in text
    assert boot.describe() in text
    assert "Seed 5" in text
    assert "boot = fit.bootstrap(60, seed=5, kind='cluster')" in text
    assert "x='x',\n    m='m<1>',\n    y='y',\n    cluster='id',\n    random=['a'],\n    covariance='by_equation'," in text
    assert "center=" not in text.split("How to reproduce")[1]  # a default
    assert f"jaxmed {jm.__version__}" in text
    assert "bootstrap standard error is known to about 9.2%" in text  # 100 / sqrt(2 * 59)


def test_the_code_of_a_report_reproduces_its_numbers(boot, tmp_path):
    text = Page(written(boot, tmp_path)).text
    code = text.split("How to reproduce")[1].split("print(")[0]
    code = re.sub(r"data = \.\.\..*", "data = given", code)
    names = {"given": boot.fit.data}
    exec(code.strip(), names)  # its assertion checks the fingerprint of the data
    pd.testing.assert_frame_equal(names["boot"].draws, boot.draws)


def test_moderated_reports_have_curves_and_their_bounds(moderated, tmp_path):
    text = Page(written(moderated, tmp_path)).text
    assert "w (level 2) moderates a[m1] and a[m2]." in text
    assert moderated.moderation("indirect[m1] within", by="w").words() in text
    assert "Johnson, P. O." in text


def test_a_report_begins_with_the_data_and_numbers_its_tables_and_figures(boot, tmp_path):
    labels = {"x": "Perceived stress", "m<1>": "Sleep"}
    source = boot.report(tmp_path / "r.html", title="Stress & sleep", author="A. <Author>", labels=labels).read_text("utf-8")
    page = Page(source)
    assert "<h1>Stress &amp; sleep</h1>" in source
    assert '<p class="author">A. &lt;Author&gt;</p>' in source
    headings = re.findall("<h2>(.*?)</h2>", source)
    assert headings.index("Descriptive statistics") < headings.index("Model") < headings.index("Results")
    for word in ("Table", "Figure"):
        numbers = [int(n) for n in re.findall(rf"<[hb]3?>{word} (\d+)\.", source)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) >= 4
    assert "Perceived stress (within)" in page.text
    assert "2. Sleep" in page.text
    assert f"Analyses used jaxmed (Version {jm.__version__})" in page.text
    assert "Residual checks, a row per equation" in page.text
    assert "x='x'" in page.text  # the code that reproduces it has the columns' own names
    with pytest.raises(InputError, match="title=3"):
        boot.report(tmp_path / "r.html", title=3)


def test_the_citation_is_that_of_the_repository():
    root = Path(__file__).parents[2]
    if not (root / "CITATION.cff").is_file():
        pytest.skip("an installed package has no CITATION.cff")
    assert f'title: "{citations.TITLE}"' in (root / "CITATION.cff").read_text()


def test_descriptives_by_hand(fit):
    table = fit.descriptives().set_index("variable")
    data = fit.data
    assert table.loc["x", "mean"] == pytest.approx(data["x"].mean())
    assert table.loc["y", "sd"] == pytest.approx(data["y"].std())
    assert table.loc["x", "n"] == data["x"].notna().sum()
    one_way = jm.lmm("x ~ 1 + (1 | id)", data).varcorr()["vcov"]
    assert table.loc["x", "icc"] == pytest.approx(one_way[0] / one_way.sum(), abs=0.05)  # unbalanced: nearly REML's
    pairs = descriptives.correlations(data[["x", "y"]], data["id"])
    left = data[["x", "y"]] - data.groupby("id")[["x", "y"]].transform("mean")
    assert pairs.loc[0, "2"] == pytest.approx(left["x"].corr(left["y"]))
    means = data.groupby("id")[["x", "y"]].mean()
    assert pairs.loc[1, "1"] == pytest.approx(means["x"].corr(means["y"]))


def test_descriptives_of_level_2_and_of_text():
    data = jm.datasets.split_model(n_clusters=12).data
    data["arm"] = np.where(data["id"] % 2, "b", "a")
    fit = jm.mediate(data, x="arm", m="m", y="y", cluster="id")
    row = fit.descriptives().iloc[0]
    assert (row["variable"], row["level"], row["n"], row["mean"]) == ("arm", 2, 12, 0.5)
    assert np.isnan(row["icc"])


def test_descriptives_of_a_mixed_model_are_of_the_rows_it_uses():
    data = jm.datasets.split_model(n_clusters=12).data
    data["arm"] = np.where(data["id"] % 2, "b", "a")
    data.loc[0, "x"] = np.nan
    mixed = jm.lmm("log(y + 30) ~ x * arm + (1 | id)", data)
    table = mixed.descriptives().set_index("variable")
    assert table.index.tolist() == ["y", "x", "arm = b"]
    used = data.dropna(subset=["x"])
    assert table.loc["y", "mean"] == pytest.approx(used["y"].mean())
    assert table.loc["y", "n"] == mixed.n_obs == len(data) - 1
    assert table.loc["arm = b", ["level", "n", "mean"]].tolist() == [2, 12, 0.5]
    assert table.loc["x", "icc"] == descriptives.table(used[["x"]], used["id"])["icc"][0]


def test_descriptives_with_several_grouping_factors():
    rng = np.random.default_rng(3)
    rows = {"school": np.repeat(np.arange(6), 20), "item": np.tile(np.arange(5), 24), "y": rng.standard_normal(120)}
    data = pd.DataFrame(rows).assign(size=lambda d: d["school"] * 10.0, hard=lambda d: d["item"] % 2, one=1.0)
    data["many"] = pd.Categorical.from_codes(np.arange(120) % 7, [f"c{k}" for k in range(7)])
    mixed = jm.lmm("y ~ size + hard + many + (1 | school) + (1 | item)", data)
    table = mixed.descriptives().set_index("variable")
    assert table.index.tolist() == ["y", "size", "hard"]  # of seven categories no shares
    assert table["level"].tolist() == ["rows", "school", "item"]
    assert table["n"].tolist() == [120, 6, 5]
    assert table.loc["size", "sd"] == pytest.approx(np.std(10 * np.arange(6), ddof=1))
    for group in ("school", "item"):
        assert table.loc["y", f"icc_{group}"] == pytest.approx(descriptives.table(data[["y"]], data[group])["icc"][0])
    assert table.loc["size", ["icc_school", "icc_item"]].isna().all()
    assert descriptives.sizes_in_words({"item": data["item"].to_numpy()}) == ["item: 5 groups of 24 rows each."]


def test_the_report_of_a_mixed_model_begins_with_the_data(lmm, tmp_path):
    source = lmm.report(tmp_path / "mixed.html", labels={"x": "Stress"}).read_text("utf-8")
    headings = re.findall("<h2>(.*?)</h2>", source)
    assert headings[:3] == ["Descriptive statistics", "Model", "Results"]
    text = Page(source).text
    assert "2. Stress" in text
    assert re.search(r"id: 20 groups of \d+ to \d+ rows \(mean [\d.]+\)\.", text)
    assert "n counts groups for variables of level 2; rows are those that the model uses." in text
    only = jm.lmm("m ~ 1 + (1 | id)", lmm.data)
    assert "Table 1. Variables" in only.report(tmp_path / "mixed.html").read_text("utf-8")


def test_sensitivity_stands_in_a_report_where_it_is_asked_for(fit, boot, lmm, tmp_path):
    path = tmp_path / "r.html"
    assert "unmeasured" not in fit.report(path).read_text("utf-8")
    assert "Imai" not in path.read_text("utf-8")
    for result in (fit, boot, fit.bootstrap(kind="jackknife", progress=False)):
        text = Page(result.report(path, sensitivity=True).read_text("utf-8")).text
        for part in ("Sensitivity to an unmeasured confounder", "indirect[m<1>] within", "indirect[m<1>] between", "Imai, K."):
            assert part in text
    one = Page(fit.report(path, sensitivity="between").read_text("utf-8")).text.partition("Sensitivity to an unmeasured")[2]
    assert fit.sensitivity("between").describe() in one
    assert "direct within" not in one.split("Diagnostics")[0]
    with pytest.raises(InputError, match="sensitivity='betwixt' is not an option"):
        fit.report(path, sensitivity="betwixt")
    with pytest.raises(InputError, match=r"report\(sensitivity=...\) needs results of mediate"):
        lmm.report(path, sensitivity=True)
    data = fit.data.assign(x=fit.data.groupby("id")["x"].transform("mean"))
    upper = jm.mediate(data, x="x", m="m<1>", y="y", cluster="id")
    with pytest.raises(InputError, match=r"sensitivity='within': this fit has no indirect effect.*use sensitivity='between'"):
        upper.report(path, sensitivity="within")
    pool = jm.mediate([data, data.assign(y=data["y"] + 0.1 * data["x"])], x="x", m="m<1>", y="y", cluster="id")
    with pytest.raises(InputError, match=r"not pooled over imputations; fits\[0\].report"):
        pool.report(path, sensitivity=True)


def test_the_coding_of_x_stands_beside_its_effects(tmp_path):
    data = jm.datasets.split_model(n_clusters=20).data
    data["arm"] = np.where(data["x"] > data["x"].median(), "treated", "waitlist")
    fit = jm.mediate(data, x="arm", m="m", y="y", cluster="id", coding={"arm": ["waitlist", "treated"]}, covariance="diagonal")
    for result in (fit, fit.bootstrap(60, seed=1, progress=False)):
        text = Page(result.report(tmp_path / "r.html").read_text("utf-8")).text.split("Results")[1]
        assert "arm: waitlist = 0, treated = 1." in text[: text.index("Fixed effects")]


def test_a_folder_that_is_missing_is_named(fit, tmp_path):
    with pytest.raises(InputError, match=r"the folder .*nowhere' does not exist"):
        fit.report(tmp_path / "nowhere" / "report.html")


def test_a_report_without_matplotlib_says_so(fit, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
    page = Page(written(fit, tmp_path))
    assert "pip install matplotlib" in page.text
    assert not [1 for tag, *_ in page.attributes if tag == "img"]


def test_a_report_in_a_browser(boot, tmp_path):
    """A headless browser opens the page: no error on its console, no request, every picture decoded, nothing cut off."""
    browser = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no browser: none of chromium, chromium-browser, google-chrome is installed")
    path = boot.report(tmp_path / "report.html")
    # the test's own script, appended to a copy, writes what the browser saw into the page
    probe = """<script>addEventListener("load", () => { const images = [...document.images];
      document.title = JSON.stringify({images: images.length, broken: images.filter(i => !i.naturalWidth).length,
        requests: performance.getEntriesByType("resource").filter(r => !r.name.startsWith("data:")).length,
        sideways: document.documentElement.scrollWidth > innerWidth}); });</script></body>"""
    copy = tmp_path / "probed.html"
    copy.write_text(path.read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,800", "--enable-logging=stderr", "--v=0"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=4000", "--dump-dom", copy.as_uri()]
    done = subprocess.run([browser, *options], capture_output=True, text=True, timeout=120, check=True)
    seen = re.search(r"<title>(.*?)</title>", done.stdout).group(1)
    assert seen == f'{{"images":{path.read_text().count("<img ")},"broken":0,"requests":0,"sideways":false}}'
    assert "CONSOLE" not in done.stderr


# --- The paragraph --------------------------------------------------------------------------------------------------


def test_the_paragraph_has_the_numbers_of_the_table(boot):
    text = boot.describe(level=0.9, method="basic")
    table = boot.tidy(0.9, "basic")
    assert "30 clusters (id)" in text
    assert "60 cluster-bootstrap samples" in text
    assert "(whole clusters drawn with replacement; seed 5)" in text
    singular = (boot.status == "singular").sum()
    assert (f"in {singular} of them the random effects were singular" in text) == bool(singular)
    found = re.findall(r"was (\S+) \(SE = (\S+)\), 90% CI \[(\S+), (\S+)\], p (=|<) (\.\d+|1\.000)", text)
    rows = table.loc[table["effect"].isin(["indirect", "direct", "total"])]
    assert len(found) == len(rows) == 6
    for numbers, row in zip(found, rows.to_dict("records"), strict=True):
        for shown, column in zip(numbers[:4], ("estimate", "std_error", "conf_low", "conf_high"), strict=True):
            decimals = len(shown.partition(".")[2])
            assert float(shown) == round(row[column], decimals)
            assert decimals == len(numbers[1].partition(".")[2])
        assert numbers[4] == "=" if row["p_value"] >= 0.001 else "<"
        assert float(numbers[5]) == pytest.approx(max(row["p_value"], 0.001), abs=5e-4)


def test_a_moderated_paragraph_names_the_values_and_stays_short(moderated):
    text = moderated.describe()
    assert len(text) < 6000
    table = moderated.tidy()
    w, v = (np.sort(table[name].dropna().unique())[1] for name in "wv")
    assert f"through m1, with v = {v:.4g} (the mean), was: at w = " in text
    assert "The table of effects also has the effects at other values of v and " in text
    assert f"at w = {w:.4g} (the mean), " in text
    assert "The index of moderated mediation by w of the indirect effect through m1 was " in text


def test_lists_in_sentences():
    assert prose.listed(["a"]) == "a"
    assert prose.listed(["a", "b", "c"]) == "a, b and c"
    assert prose.listed(["a, x", "b"]) == "a, x; and b"


# --- Tables ---------------------------------------------------------------------------------------------------------


def test_every_table_of_a_result_in_every_form(fit, boot, lmm):
    tables = (
        (fit, ("effects", "fixef", "varcorr", "ranef", "cluster_effects", "glance")),
        (boot, ("tidy",)),
        (lmm, ("fixef", "varcorr", "anova", "ranef", "glance")),
    )
    for result, names in tables:
        for name in names:
            n = len(getattr(result, name)())
            assert result.to_markdown(name).count("\n") == n + 1
            assert result.to_latex(name).count("\\\\\n") == n + 1
            assert Page(result.to_html(name)).text.count("\n") >= n
    with pytest.raises(InputError, match="table='anova' is no table of this result; choose one of 'effects'"):
        fit.to_latex("anova")


def test_tables_carry_the_numbers_and_escape_names(fit):
    row = fit.effects().set_index("label").loc["indirect[m<1>] within"]
    lines = fit.to_markdown("effects", columns=["label", "estimate"], formats={"estimate": ".3f"}).splitlines()
    assert f"| indirect[m<1>] within | {row['estimate']:.3f} |" in lines
    assert r"m\textless{}1\textgreater{}" in fit.to_latex()
    assert "m&lt;1&gt;" in fit.to_html()
    assert r"m<1>:Intercept" in fit.to_markdown("varcorr")  # the labels of its rows are a column


@pytest.mark.parametrize("name", ["[x", "*x", "[x]", "*"])
def test_no_row_of_latex_begins_with_an_option_or_a_star(name):
    source = export.latex_table(pd.DataFrame({name: [name, "x"], "term": [name, "x"]}))
    assert source.splitlines()[2].startswith("{}" + name)  # behind a rule, which takes an option too
    assert source.splitlines()[4].startswith("{}" + name)
    assert source.splitlines()[5].startswith("x")


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("a|b", r"a\|b"),
        (r"a\|b", r"a\\\|b"),
        (r"\alpha", r"\\alpha"),
        ("<b>x</b>", "&lt;b>x&lt;/b>"),
        ("<!-- x", "&lt;!-- x"),
        ("p <.001", "p <.001"),
        ("a&b", "a&b"),
        ("&lt;b>", "&amp;lt;b>"),
        ("*x* _y_ x_w `z` ~~v~~", r"\*x\* \_y\_ x_w \`z\` \~\~v\~\~"),
        ("$x$ and 2^2", r"\$x\$ and 2\^2"),
        ("[x](http)", r"[x\](http)"),
        ("indirect[m] within", "indirect[m] within"),
        ("50% #1", "50% #1"),
        ("two\nlines", "two lines"),
    ],
)
def test_markdown_shows_names_as_they_are(name, written):
    source = export.markdown_table(pd.DataFrame({name: [name]}), title=name)
    assert source.splitlines() == [written, "", f"| {written} |", "| :--- |", f"| {written} |"]


def test_latex_of_special_characters_compiles_in_principle():
    source = export.latex_table(pd.DataFrame({"term": ["a_b & 50% {x} #1 $ ~ ^ \\ |"]}), title="T_1")
    cell = source.splitlines()[7]
    assert cell.endswith(r" \\")
    bare = re.sub(r"\\(textbackslash|textasciitilde|textasciicircum|textbar)\{\}|\\[&%$#_{}]", "", cell[:-3])
    assert not set(bare) & set("&%$#_{}~^\\|")
    assert r"\caption{T\_1}" in source


def test_models_side_by_side(lmm, fit, boot):
    other = jm.lmm("m ~ 1 + (1 | id)", lmm.data)
    table = jm.compare_table({"with": lmm, "without": other}).set_index("term")
    row = lmm.fixef().set_index("term").loc["x"]
    assert table.loc["x", "with"] == f"{row['estimate']:.3f} ({row['std_error']:.3f})"
    assert table.loc["x", "without"] == ""
    assert table.loc["n_obs", "with"] == f"{lmm.n_obs:,}"
    assert table.loc["converged"].tolist() == ["yes", "yes"]
    mixed = jm.compare_table({"system": fit, "equation": lmm}).set_index("term")
    assert mixed.loc["m: x", "equation"] == table.loc["x", "with"]
    assert mixed.loc["y: m<1>_within", "equation"] == ""
    assert mixed.loc["n_clusters"].tolist() == ["30", "20"]
    both = jm.compare_table([fit, boot], what="effects", interval=True, digits=2).set_index("term")
    b = boot.tidy().set_index("label").loc["direct within"]
    assert both.loc["direct within", "(2)"] == f"{b['estimate']:.2f} [{b['conf_low']:.2f}, {b['conf_high']:.2f}]"
    with pytest.raises(InputError, match="what='effects' needs results of mediate"):
        jm.compare_table([lmm], what="effects")
    with pytest.raises(InputError, match="there are no results"):
        jm.compare_table([])
