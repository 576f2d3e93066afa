"""Sums made by Dask and by PySpark, where these are installed: those of the rows in pandas."""

import shutil
import warnings

import numpy as np
import pytest
from designs import mediation_design
from queries import MODELS, ROLES, mixed_table

import jaxmed
from jaxmed.design.mediation import engine as engines

pytestmark = [
    # narwhals announces that Dask's frames will need a package of their own, Spark that it has not been tried on pandas 3
    pytest.mark.filterwarnings("ignore:Dask support is moving:FutureWarning"),
    pytest.mark.filterwarnings("ignore:PySpark does not yet:FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning"),  # Java is started by a fork, in a process that may have run JAX
]
FORM = {"form": ["third", "first", "second"]}  # Spark has text, and no categories with an order of their own


@pytest.fixture(scope="module")
def table():
    return mixed_table()


@pytest.fixture(scope="module")
def dask(table):
    """Tables as Dask's frames of three partitions."""
    frames = pytest.importorskip("dask.dataframe", reason="dask.dataframe is not installed")
    return lambda made: frames.from_pandas(made.sample(frac=1.0, random_state=5), npartitions=3)


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    """Tables as Spark's frames of Parquet files, on one core."""
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    if shutil.which("java") is None:
        pytest.skip("pyspark needs Java, and there is none")
    from pyspark.sql import SparkSession

    options = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.adaptive.enabled": "false",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",  # most of the time is Java's compiler
    }
    build = SparkSession.builder.master("local[1]").appName("jaxmed")
    for name, value in options.items():
        build = build.config(name, value)
    session = build.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")

    def frame(made):
        path = str(tmp_path_factory.mktemp("rows") / "rows.parquet")
        shuffled = made.sample(frac=1.0, random_state=5)
        if "form" in shuffled:
            shuffled["form"] = shuffled["form"].astype(object)
        shuffled.to_parquet(path, index=False)
        return session.read.parquet(path)

    yield frame
    session.stop()


def same(query, table, **arguments):
    """Sums to 1e-9, and all that is said, as of the rows in pandas."""

    def of(data):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", jaxmed.JaxmedWarning)
            sums = jaxmed.gram_data(data, **ROLES | arguments).sums
        return sums, [str(one.message) for one in caught if issubclass(one.category, jaxmed.JaxmedWarning)]

    (found, ours), (expected, theirs) = of(query), of(table)
    assert ours == theirs
    np.testing.assert_array_equal(found.labels, expected.labels)
    for name, one in expected.summaries.items():
        for figure in ("count", "low", "high", "mean", "spread"):
            np.testing.assert_allclose(getattr(found.summaries[name], figure), getattr(one, figure), rtol=1e-9, err_msg=name)
    for response, raw in expected.raw.items():
        assert found.raw[response].monomials == raw.monomials
        np.testing.assert_allclose(found.raw[response].sums, raw.sums, rtol=0, atol=1e-9 * np.abs(raw.sums).max())


def far(table):
    """Origins at which squares have lost many digits of what varies, though means have theirs."""
    return table.assign(x=table["x"] + 1e6, year=table["u"] + 1e6)


def coded(table):
    return table.assign(x=np.where(np.arange(len(table)) % 10 == 0, -99.0, table["x"]))


def named(table):
    return table.assign(id=[f"school {i}" for i in table["id"]], late=table["late"].astype("boolean"))


CHANGES = {
    "far origins": (far, dict(covariates=["year"], moderators={"b": "u"})),
    "codes for missing values": (coded, {}),
    "labels of clusters as text": (named, dict(covariates=["late"])),
    "values in some rows of their cluster": (
        lambda table: table.assign(w=table["w"].where(table.groupby("id").cumcount() < 2)),
        dict(covariates=["w"]),
    ),
}


@pytest.mark.parametrize("model", MODELS)
def test_dask(table, dask, model):
    same(dask(table), table, **MODELS[model])


@pytest.mark.parametrize("change", CHANGES)
def test_dask_with(table, dask, change):
    changed, arguments = CHANGES[change]
    same(dask(changed(table)), changed(table), **arguments)


@pytest.mark.parametrize("model", ["covariates of both levels", "level-1 moderators"])
def test_spark(table, spark, model):
    arguments = MODELS[model]
    same(spark(table), table, **arguments | ({"coding": FORM} if "form" in str(arguments) else {}))


@pytest.mark.parametrize("change", CHANGES)
def test_spark_with(table, spark, change):
    changed, arguments = CHANGES[change]
    same(spark(changed(table)), changed(table), **arguments)


def test_the_fit_is_that_of_the_rows(table, dask, spark):
    expected = jaxmed.mediate(table, **ROLES, random="all")
    for query in (dask(table), spark(table)):
        fit = jaxmed.mediate(query, **ROLES, random="all")
        for name in ("estimate", "std_error"):
            np.testing.assert_allclose(fit.effects()[name], expected.effects()[name], rtol=1e-9)


def test_categories_of_dask_keep_their_order_where_they_are_known(table, dask):
    arguments = ROLES | dict(covariates=["form"])
    known = dask(table)
    found = known.assign(form=known["form"].cat.as_unknown())
    for query, reference in ((known, "third"), (found, "first")):  # unknown ones sort as text
        assert jaxmed.gram_data(query, **arguments).sums.coded["form"].levels[0] == reference
    assert jaxmed.mediate(known, **arguments).design.coding == mediation_design(table, **arguments).coding


def test_what_cannot_be_fitted(table, dask, spark):
    for change, words in (
        (lambda t: t.assign(id=t["id"].where(t["id"] > 1)), "rows have no cluster"),
        (lambda t: t.assign(x=t["x"].where(t["id"] > 2, np.inf)), "x='x': .* infinite values"),
        (lambda t: t.assign(x=2.5), "x='x': the column is constant"),
    ):
        for query in (dask(change(table)), spark(change(table))):
            with pytest.raises(jaxmed.InputError, match=words):
                jaxmed.gram_data(query, **ROLES)


def test_a_step_that_an_engine_cannot_do_is_named(table, dask, monkeypatch):
    query = dask(table)

    def cannot(frame):
        raise NotImplementedError("no variance\nhere")

    monkeypatch.setattr(engines, "_collect", cannot)
    words = (
        r"data: the engine of dask\S* could not compute counts, means, extremes and variances per cluster "
        r"\(NotImplementedError: 'no variance here'\); give a table in memory \(data.compute\(\)\), or the rows as Parquet"
    )
    with pytest.raises(jaxmed.InputError, match=words):
        jaxmed.gram_data(query, **ROLES)


def test_a_spark_session_that_has_stopped_is_named(table, spark):
    query = spark(table)
    query.sparkSession.stop()
    with pytest.raises(
        jaxmed.InputError, match=r"the engine of pyspark\S* could not compute .*give a table in memory \(data.toPandas"
    ):
        jaxmed.gram_data(query, **ROLES)


def test_verbs_that_need_rows_say_how_to_have_them(table, dask):
    with pytest.raises(
        jaxmed.InputError, match=r"whose rows are not in memory, and this needs rows; give a table: data.compute\(\)"
    ):
        jaxmed.lmm("m ~ x + (1 | id)", dask(table))
