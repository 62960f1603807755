"""The flags that choose a text corpus."""

import importlib.metadata
import pathlib
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from experiments.lib.config import FOLDER, AtLeast, RunConfig
from experiments.lib.errors import UserError
from experiments.lib.logs import notice
from experiments.lib.sources.corpus import Corpus, load_corpus, load_docstrings
from experiments.lib.sources.pieces import PieceCorpus, Vocabulary, of_docstrings, of_file
from experiments.lib.tokenizer import chinese_words


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


class PiecesText(NamedTuple):
    """A data set of word pieces.

    Attributes:
      train: examples of the corpus, see `Dataset`.
      test: examples, too.
      pieces: documents and tokenizer.
    """

    train: Any
    test: Any
    pieces: PieceCorpus


@dataclass(frozen=True)
class CorpusConfig(RunConfig):
    """The flags that choose documents."""

    corpus: Annotated[str, FOLDER] = ""
    """File with a document on each line, words between spaces; or .jsonl with an object
    {"text": ..., "label": ...} on each line. Empty: the documentation strings of --docstrings."""
    docstrings: str = "stdlib,numpy,sklearn,jax,flax,optax"
    """Packages whose documentation strings are the corpus where there is no --corpus; stdlib is
    Python's standard library."""

    def folder(self) -> pathlib.Path:
        """Where what is made of a corpus is kept: "corpora" beside the folder of the run."""
        return pathlib.Path(self.workdir or "runs/any").parent / "corpora"

    def packages(self) -> tuple[str, ...]:
        """The packages of --docstrings.

        Raises:
          UserError: there are none.
        """
        names = (name.strip() for name in self.docstrings.split(","))
        packages = tuple(name for name in names if name)
        if not packages:
            raise UserError(
                f"--docstrings {self.docstrings}: expected names of packages separated by commas,"
                " such as stdlib,numpy"
            )
        return packages


@dataclass(frozen=True)
class TextConfig(CorpusConfig):
    """The flags of an experiment on words."""

    labels: Annotated[str, FOLDER] = ""
    """File with the label of each document of --corpus on a line."""
    min_count: Annotated[int, AtLeast(1)] = 5
    """Words that occur less often are left out."""

    def text(self) -> Corpus:
        """Opens the corpus.

        Raises:
          UserError: the corpus is not there, not of the right form, or has too few words.
        """
        if self.corpus:
            text = load_corpus(self.corpus, self.folder(), self.min_count, self.labels)
        elif self.labels:
            raise UserError(f"--labels {self.labels}: needs --corpus, the file of the documents")
        else:
            text = load_docstrings(self.packages(), self.folder(), self.min_count)
        for note in text.notes:
            notice(f"{text.name}: {note}")
        notice(
            f"{text.name}: {len(text.starts) - 1} documents, {len(text.tokens)} known words,"
            f" {len(text.words)} of them different, {len(text.classes) or 'no'} classes"
        )
        return text


@dataclass(frozen=True)
class PiecesConfig(CorpusConfig):
    """The flags of an experiment on word pieces."""

    vocab: Annotated[str, FOLDER] = ""
    """A vocab.txt, a tokenizer.json, or a folder with one of them. Empty: that of --init if it is
    given, or else learned from the corpus."""
    vocab_size: Annotated[int, AtLeast(100)] = 8192
    """Pieces of a learned vocabulary."""
    segmenter: Literal["none", "jieba"] = "none"
    """Finds the words of a language without spaces, which are masked as a whole."""

    def pieces(self, vocab: str = "") -> PieceCorpus:
        """Opens the corpus.

        Args:
          vocab: in place of an empty --vocab.

        Raises:
          UserError: the corpus or the vocabulary is not there or not of the right form.
        """
        path = self.vocab or vocab
        vocabulary = Vocabulary(pathlib.Path(path) if path else None, self.vocab_size)
        if self.segmenter == "jieba":
            segment = chinese_words()
            version = importlib.metadata.version("jieba")
            vocabulary = vocabulary._replace(segment=segment, segmenter=f"jieba {version}")
        if self.corpus:
            found = of_file(pathlib.Path(self.corpus), self.folder(), vocabulary)
        else:
            found = of_docstrings(self.packages(), self.folder(), vocabulary)
        for note in found.notes:
            notice(f"{found.name}: {note}")
        notice(
            f"{found.name}: {len(found.starts) - 1} documents, {len(found.tokens)} pieces of a"
            f" vocabulary of {found.tokenizer.get_vocab_size()}"
        )
        return found
