"""The classifier's features: how well it classifies, what it refuses, and that it is kept."""

import contextlib
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lib.dataset import Arrays
from experiments.lib.errors import UserError
from experiments.lib.sources.image_set import Images
from experiments.lib.sources.images import load_images
from experiments.methods import features, judge
from experiments.methods.features import kept, signed_pixels

DIGITS = load_images("digits")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The extractor of the digits, its folder, and what was said while it was trained."""
    folder, said = tmp_path_factory.mktemp("features"), io.StringIO()
    with contextlib.redirect_stderr(said):
        extractor = features.extractor(DIGITS, folder)
    return extractor, folder, said.getvalue()


@pytest.fixture
def extractor(trained):
    return trained[0]


def _signed(split, count=None):
    count = len(split) if count is None else count
    return signed_pixels(split[np.arange(count)]["image"], DIGITS.levels)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_grey_levels_fill_minus_one_to_one(kind, levels):
    x = signed_pixels(kind(np.arange(levels, dtype=np.uint8)), levels)
    assert type(x) is type(kind(np.zeros(1)))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, np.linspace(-1, 1, levels), atol=1e-6)
    assert (x[0], x[-1]) == (-1, 1)


def test_it_classifies_digits(extractor):
    assert extractor.accuracy > 0.92
    labels = extractor.classify(_signed(DIGITS.test))
    assert labels.dtype == np.int32
    right = labels == DIGITS.test[np.arange(360)]["label"]
    assert right.mean() == pytest.approx(extractor.accuracy)


def test_noise_is_told_from_digits(trained):
    """By cfid and coverage; the docstring of `judge` says why not by density and precision."""
    extractor, _, _ = trained
    held = extractor.features(_signed(DIGITS.test))
    real = judge.Reference(held, judge._fit("the real images", held))
    noise = np.random.default_rng(0).uniform(-1, 1, (360, 8, 8, 1)).astype(np.float32)
    found, floor = (
        judge.judge(real, extractor.features(images), jax.random.key(0))
        for images in (noise, _signed(DIGITS.train, 360))
    )
    assert found["cfid"] > 10 * floor["cfid"]
    assert found["coverage"] < 0.2
    assert floor["coverage"] > 0.7


def test_features_have_the_scale_that_the_kernel_needs(extractor):
    x = extractor.features(_signed(DIGITS.train))
    assert (x.shape, x.dtype) == ((1437, 64), np.float32)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-4)
    assert np.mean(x**2) == pytest.approx(1, rel=1e-4)
    assert (x.std(axis=0) > 0.05).all()  # no feature is dead


def test_blocks_leave_no_trace_and_one_program_sees_them_all(extractor):
    images = _signed(DIGITS.train, 600)
    compiled = features._look._cache_size()
    whole = extractor.features(images)
    for first, last in ((0, 1), (511, 513), (512, 600)):
        part = extractor.features(images[first:last])
        np.testing.assert_allclose(part, whole[first:last], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(
        extractor.classify(images[590:]), extractor.classify(images)[590:]
    )
    assert features._look._cache_size() == max(compiled, 1)


def test_any_floats_are_seen_alike(extractor):
    images = _signed(DIGITS.test, 3)  # seventeen levels: exact in half precision
    whole = extractor.features(images)
    for kind in (jnp.asarray(images), jnp.asarray(images, jnp.bfloat16), images.astype(np.float64)):
        np.testing.assert_array_equal(extractor.features(kind), whole)
    extractor.features(images * 1.0005)  # rounding


def _with(value):
    images = _signed(DIGITS.test, 2)
    images[1, 3, 4, 0] = value
    return images


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 8, 9, 1)), r"images \(2, 8, 9, 1\); expected \[N, 8, 8, 1\] with N >= 1"),
        (np.zeros((8, 8, 1)), r"images \(8, 8, 1\); expected"),
        (np.zeros((0, 8, 8, 1)), r"images \(0, 8, 8, 1\); expected"),
        (np.zeros((2, 8, 8, 1), np.uint8), "images of uint8; expected floats"),
        (_with(np.nan), r"images hold nan; expected finite numbers in \[-1, 1\]"),
        (_with(-np.inf), "images hold -inf; expected finite"),
        (_with(255), r"images hold 255; expected numbers in \[-1, 1\]"),
        (_with(-1.01), r"images hold -1.01; expected"),
    ],
)
def test_images_that_are_refused(extractor, images, message):
    for look in (extractor.features, extractor.classify):
        with pytest.raises(ValueError, match=message) as error:
            look(images)
        assert "\n" not in str(error.value)


@pytest.fixture
def untrained(monkeypatch):
    """Lets training leave the weights as they start; a list of what was trained."""
    trained = []

    def start(network, data, steps, path):
        trained.append(path.name)
        form = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *data.shape)))
        rng = np.random.default_rng(0)
        return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), form)

    monkeypatch.setattr(features, "_train", start)
    return trained


def _changed(split, column, value):
    columns = {name: array.copy() for name, array in DIGITS._asdict()[split].columns.items()}
    columns[column].flat[7] = value
    return DIGITS._replace(**{split: Arrays(columns)})


def test_it_is_trained_once(untrained, tmp_path):
    first, again = (features.extractor(DIGITS, tmp_path / "new" / "folder") for _ in range(2))
    assert len(untrained) == 1
    assert (first.digest, first.accuracy) == (again.digest, again.accuracy)
    assert first.facts == again.facts
    images = _signed(DIGITS.test)
    np.testing.assert_array_equal(first.features(images), again.features(images))
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == untrained


def test_facts_tell_other_weights_apart(untrained, tmp_path):
    one, other = (
        features.extractor(data, tmp_path) for data in (DIGITS, DIGITS._replace(levels=256))
    )
    assert one.digest != other.digest
    assert one.facts["classifier_digest"] != other.facts["classifier_digest"]
    assert one.digest.startswith(f"{int(one.facts['classifier_digest']):06x}")
    assert np.float32(one.facts["classifier_digest"]) == one.facts["classifier_digest"]
    assert one.facts["classifier_accuracy"] == one.accuracy


@pytest.mark.parametrize(
    "other",
    [
        _changed("train", "image", 16),
        _changed("train", "label", 9),
        _changed("test", "image", 16),
        DIGITS._replace(levels=256),
        DIGITS._replace(name="numbers"),
    ],
    ids=["train image", "train label", "test image", "levels", "name"],
)
def test_other_data_never_finds_the_weights(untrained, tmp_path, other):
    features.extractor(DIGITS, tmp_path)
    features.extractor(other, tmp_path)
    assert len(set(untrained)) == 2


def test_other_constants_never_find_the_weights(untrained, tmp_path, monkeypatch):
    features.extractor(DIGITS, tmp_path)
    for constant in ("_RATE", "_BATCH", "_SEED", "_FORM"):
        monkeypatch.setattr(features, constant, 2 * getattr(features, constant) + 1)
        features.extractor(DIGITS, tmp_path)
    assert len(set(untrained)) == 5


def test_damaged_weights_are_made_again(untrained, tmp_path, capsys):
    digest = features.extractor(DIGITS, tmp_path).digest
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    for damaged in (b"", content[:100], content[:middle], content[:-1], flipped):
        path.write_bytes(damaged)
        assert features.extractor(DIGITS, tmp_path).digest == digest
        assert "is damaged; it is made again" in capsys.readouterr().err
        assert path.read_bytes() != damaged
    assert len(untrained) == 6


def test_arrays_that_were_exchanged_are_noticed(tmp_path):
    path = tmp_path / "file.npz"
    kept(path, lambda: {"a": np.zeros(3), "b": 1})
    with np.load(path) as file:
        arrays = dict(file)
    for change in ({"a": np.ones(3)}, {"a": np.zeros((3, 1))}, {"c": arrays.pop("b")}):
        np.savez(path, **arrays, **change) if "c" in change else np.savez(path, **arrays | change)
        held = kept(path, lambda: {"a": np.full(3, 2.0), "b": 1})
        np.testing.assert_array_equal(held["a"], 2)
        path.unlink()


def test_training_says_how_long_it_takes_and_reading_nothing(trained, capsys):
    extractor, folder, said = trained
    (line,) = said.splitlines()
    (path,) = folder.iterdir()
    assert line.startswith("training the classifier that judges digits: 500 steps, about ")
    assert line.endswith(str(path))
    assert features.extractor(DIGITS, folder).digest == extractor.digest
    assert capsys.readouterr().err == ""


def test_sets_that_cannot_be_learned(tmp_path):
    bare = Arrays({"image": DIGITS.test[np.arange(9)]["image"]})
    faces = Images("faces", bare, bare, (8, 8, 1), 17)
    with pytest.raises(UserError, match="--data faces: has no labels; expected a set to train"):
        features.extractor(faces, tmp_path)
    with pytest.raises(UserError, match=r"has the label -1; expected labels >= 0"):
        features.extractor(_changed("test", "label", -1), tmp_path)
    assert not any(tmp_path.iterdir())


def test_folders_that_cannot_be_used(untrained, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: File exists; expected a folder"):
        features.extractor(DIGITS, tmp_path / "file")
    assert untrained == []  # said before the work


def test_the_network_takes_any_size():
    network = features._Classifier(3)
    for shape in ((4, 4, 1), (15, 17, 2), (28, 28, 1), (33, 32, 3)):
        out = jax.eval_shape(network.init_with_output, jax.random.key(0), jnp.zeros((2, *shape)))[0]
        assert out.shape == (2, 3)
