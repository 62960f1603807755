"""The flags that choose a text corpus."""

import pathlib
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from experiments.lib.config import FOLDER, AtLeast, RunConfig
from experiments.lib.errors import UserError
from experiments.lib.logs import notice
from experiments.lib.sources.corpus import Corpus, load_corpus, load_docstrings


class Text(NamedTuple):
    """A data set of text.

    Attributes:
      train: examples of the corpus, see `Dataset`.
      test: examples, too.
      corpus: vocabulary and documents.
    """

    train: Any
    test: Any
    corpus: Corpus


@dataclass(frozen=True)
class TextConfig(RunConfig):
    """The knobs of an experiment on text."""

    corpus: Annotated[str, FOLDER] = ""
    """File with a document on each line, words between spaces; or .jsonl with an object
    {"text": ..., "label": ...} on each line. Empty: the documentation strings of --docstrings."""
    labels: Annotated[str, FOLDER] = ""
    """File with the label of each document of --corpus on a line."""
    docstrings: str = "stdlib,numpy,sklearn,jax,flax,optax"
    """Packages whose documentation strings are the corpus where there is no --corpus; stdlib is
    Python's standard library."""
    min_count: Annotated[int, AtLeast(1)] = 5
    """Words that occur less often are left out."""

    def text(self) -> Corpus:
        """Opens the corpus. Its numbers are kept in "corpora" beside the folder of the run.

        Raises:
          UserError: the corpus is not there, not of the right form, or has too few words.
        """
        folder = pathlib.Path(self.workdir or "runs/any").parent / "corpora"
        if self.corpus:
            text = load_corpus(self.corpus, folder, self.min_count, self.labels)
        elif self.labels:
            raise UserError(f"--labels {self.labels}: needs --corpus, the file of the documents")
        else:
            text = load_docstrings(self._packages(), folder, self.min_count)
        for note in text.notes:
            notice(f"{text.name}: {note}")
        notice(
            f"{text.name}: {len(text.starts) - 1} documents, {len(text.tokens)} known words,"
            f" {len(text.words)} of them different, {len(text.classes) or 'no'} classes"
        )
        return text

    def _packages(self) -> tuple[str, ...]:
        names = (name.strip() for name in self.docstrings.split(","))
        packages = tuple(name for name in names if name)
        if not packages:
            raise UserError(
                f"--docstrings {self.docstrings}: expected names of packages separated by commas,"
                " such as stdlib,numpy"
            )
        return packages
