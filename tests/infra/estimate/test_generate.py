"""What is generated in Pulumi.yaml and README.md is what the code says."""

from infra.estimate.generate import generated
from trainyard.contract.generated import between_marks
from trainyard.paths import PROGRAM


def test_the_files_say_what_the_code_does() -> None:
    for name, parts in generated().items():
        text = (PROGRAM / name).read_text()
        for mark, content in parts.items():
            assert between_marks(text, mark, "") != text, f"{name} has no marks of {mark}"
            told = f"{name}, {mark}: make generate writes it anew"
            assert between_marks(text, mark, content) == text, told
