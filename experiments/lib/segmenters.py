"""Segmenters: functions that cut a text into its words, for languages written without spaces."""

import logging
import re
import tempfile
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator

from experiments.lib.errors import UserError

# What BERT's tokenizer isolates as Chinese characters.
_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]")


def chinese_words() -> Callable[[str], Iterable[str]]:
    """The segmenter of the package jieba, for `encode`.

    Letters of other scripts that follow each other are kept together; jieba cuts "naïve" in three.

    Raises:
      UserError: jieba is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in its source
            import jieba  # noqa: PLC0415  optional
    except ImportError:
        raise UserError(
            "--segmenter jieba: is not installed; expected pip install -e '.[chinese]' before"
        ) from None
    logging.getLogger("jieba").setLevel(logging.WARNING)
    jieba_words = jieba.Tokenizer()
    # By default it reads its dictionary from a file in /tmp that any user may have put there.
    with tempfile.TemporaryDirectory() as folder:
        jieba_words.tmp_dir = folder
        jieba_words.initialize()

    def words(text: str) -> Iterator[str]:
        word = ""
        for part in jieba_words.cut(text):
            if word and _joins(word[-1]) and _joins(part[0]):
                word += part
                continue
            if word:
                yield word
            word = part
        if word:
            yield word

    return words


def _joins(char: str) -> bool:
    """Whether it is a letter, digit or accent, and not Chinese."""
    return unicodedata.category(char)[0] in "LMN" and not _IDEOGRAPH.match(char)
