"""docs/tutorials.md: what it names is there."""

import re

from tests.conftest import ROOT

PAGE = (ROOT / "docs/tutorials.md").read_text()


def test_each_test_and_file_that_it_names_is_there() -> None:
    named = re.findall(r"`((?:tests|flows|docker)/[\w./]+?)/?(?:::(\w+))?`", PAGE)
    assert named
    for file, test in named:
        path = ROOT / file
        assert path.exists(), file
        assert not test or f"def {test}(" in path.read_text(), f"{file}::{test}"


def test_each_pipeline_that_it_names_has_a_demo() -> None:
    deployments = (ROOT / "prefect.yaml").read_text()
    for flow in re.findall(r"make demo FLOW=(\w+)", PAGE):
        assert re.search(rf"entrypoint: flows/{flow}/.*\n.*\n\s+tags: \[.*\bdemo\b", deployments)


def test_the_readme_lists_every_demo_with_a_picture_of_its_run() -> None:
    readme = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| `(\w+)`.*\[picture\]\((.*)\) \|$", readme, re.MULTILINE)
    deployments = (ROOT / "prefect.yaml").read_text()
    demos = re.findall(r"entrypoint: flows/(\w+)/.*\n.*\n\s+tags: \[.*\bdemo\b", deployments)
    assert sorted(flow for flow, _ in rows) == sorted(demos)
    for page in (readme, PAGE.replace("](images/", "](docs/images/")):
        for picture in re.findall(r"\]\((docs/images/.*?)\)", page):
            assert (ROOT / picture).exists(), picture
