"""infra/README.md: its generated parts are what the code says."""

from infra import readme


def test_the_readme_says_what_the_code_does() -> None:
    text = readme.README.read_text()
    assert readme.written(text) == text, "python -m infra.readme writes it anew"
