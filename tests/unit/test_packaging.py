"""What stands twice is the same: versions, targets of the Makefile, links that work outside the repository."""

import re
import tomllib
from pathlib import Path

from full import FULL

import jaxmed

HOUSE = Path(__file__).parents[2]
PROJECT = tomllib.loads((HOUSE / "pyproject.toml").read_text())


def test_the_lowest_versions_are_those_that_the_project_allows():
    allowed = [re.match(r"([\w-]+)>=([\d.]+)$", one).groups() for one in PROJECT["project"]["dependencies"]]
    lines = [line for line in (HOUSE / "tests" / "lowest.txt").read_text().splitlines() if not line.startswith("#")]
    tested = dict(line.split("==") for line in lines)
    assert list(tested) == [name for name, _ in allowed]
    for name, version in allowed:
        assert f"{tested[name]}.".startswith(f"{version}."), name
        assert not tested[name].removeprefix(version).strip(".0"), name


def test_there_is_one_version():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert f'"{jaxmed.__version__}"' in (HOUSE / PROJECT["tool"]["hatch"]["version"]["path"]).read_text()


def test_workflows_and_documents_call_targets_that_the_makefile_has():
    targets = set(re.findall(r"^([\w-]+):", (HOUSE / "Makefile").read_text(), re.MULTILINE))
    places = [*(HOUSE / ".github").rglob("*.yml"), HOUSE / "README.md", HOUSE / "CONTRIBUTING.md"]
    named = {name for place in places for name in re.findall(r"(?:run: |`|^    )make ([\w-]+)", place.read_text(), re.MULTILINE)}
    assert {"test", "test-full", "test-lowest", "lint", "docs"} <= named <= targets


def test_links_of_the_readme_work_outside_the_repository():
    # a picture's path is made an address when the repository has one (docs/releasing.md)
    links = re.findall(r"(?<!!)\[[^]]*\]\(([^)]+)\)", (HOUSE / "README.md").read_text())
    assert links
    assert all(link.startswith("https://") for link in links)


def test_what_make_test_leaves_out_is_there():
    files = {entry.split("::")[0] for entry in FULL}
    assert all((HOUSE / "tests" / file).is_file() for file in files)
    for entry in FULL:
        file, _, name = entry.partition("::")
        assert f"def {name.partition('[')[0]}" in (HOUSE / "tests" / file).read_text(), entry


def test_the_recipe_asks_for_what_the_project_asks_for():
    recipe = (HOUSE / "docs" / "conda" / "recipe.yaml").read_text()
    run = re.search(r"^  run:\n((?:    - .*\n)+)", recipe, re.MULTILINE)[1]
    asked = [line.removeprefix("    - ").replace(" >=", ">=") for line in run.splitlines()]
    assert asked == ["python>=${{ python_min }}", *PROJECT["project"]["dependencies"]]
    assert f'python_min: "{PROJECT["project"]["requires-python"].removeprefix(">=")}"' in recipe
    assert f"version: {jaxmed.__version__}\n" in recipe
    assert f"- {PROJECT['build-system']['requires'][0].replace('>=', ' >=')}\n" in recipe
    assert f"summary: {PROJECT['project']['description']}\n" in recipe
