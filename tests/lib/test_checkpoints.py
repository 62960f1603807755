"""Checkpoints: damage of any kind is noticed, said, and survived."""

import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from experiments.lib import devices
from experiments.lib.checkpoints import Checkpoints, read, steps
from experiments.lib.errors import DivergedError, UserError


def _state(value):
    return {
        "f32": jax.random.normal(jax.random.key(0), (3000,)) * value,
        "bf16": jnp.full((2, 5), value, jnp.bfloat16),
        "i32": jnp.int32(-value),
        "bool": jnp.array([True, False]),
        "nested": (jnp.ones(()), [jnp.zeros((0, 3)), jnp.full((8, 2), value, jnp.float16)]),
    }


@pytest.fixture
def sharding():
    return devices.replicated(devices.make_mesh())


@pytest.fixture
def like(sharding):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), _state(1)
    )


@pytest.fixture
def saved(sharding, tmp_path):
    """Checkpoints 1 to 5, of which the last three are kept."""
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder)
    for step in range(1, 6):
        checkpoints.save(step, jax.device_put(_state(step), sharding), seconds=step / 2)
    checkpoints.close()
    assert sorted(path.name for path in folder.iterdir()) == ["3", "4", "5"]
    return folder


def _restore(folder, like):
    checkpoints = Checkpoints(folder)
    try:
        restored = checkpoints.restore(like)
        assert restored
        step, state, seconds = restored
        assert seconds == step / 2
        assert jax.tree.map(lambda x: x.sharding, state) == jax.tree.map(lambda x: x.sharding, like)
        jax.tree.map(np.testing.assert_array_equal, state, _state(step))
        for leaf, form in zip(jax.tree.leaves(state), jax.tree.leaves(like), strict=True):
            assert leaf.dtype == form.dtype
        return step
    finally:
        checkpoints.close()


def _files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_newest_comes_back_bit_for_bit(saved, like):
    assert _restore(saved, like) == 5


def test_nothing_to_restore(tmp_path, like):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.restore(like) is None
    checkpoints.close()


def test_the_state_may_be_donated_while_it_is_written(tmp_path, sharding, like):
    add = jax.jit(lambda state: jax.tree.map(lambda x: ~x if x.dtype == bool else x + x, state),
                  donate_argnums=0)  # fmt: skip
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    state = jax.device_put(_state(1), sharding)
    checkpoints.save(1, state, seconds=0.5)
    for _ in range(3):
        state = add(state)
    checkpoints.close()
    assert _restore(tmp_path / "checkpoints", like) == 1


def _cut(path: pathlib.Path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: pathlib.Path):
    path.write_bytes(b"")


def _flip(path: pathlib.Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_cut, _empty, _flip, pathlib.Path.unlink])
def test_a_damaged_file_is_never_believed(saved, like, sharding, damage, capsys):
    """Every file in turn: what comes back is always the bits of some step, and a loss is said."""
    lost = 0
    for name in _files(saved / "5"):
        folder = saved.with_name("copy") / "checkpoints"
        shutil.rmtree(folder.parent, ignore_errors=True)
        shutil.copytree(saved, folder)
        damage(folder / "5" / name)
        step = _restore(folder, like)
        said = capsys.readouterr().err
        assert step == 5 or (step == 4 and f"{folder / '5'} is damaged (" in said), name
        if step == 4:
            lost += 1
            assert len(said.splitlines()) == 1
            assert _files(folder.parent / "damaged_checkpoints" / "5")
            assert sorted(path.name for path in folder.iterdir()) == ["3", "4"]
    assert lost >= 3  # the arrays, their index, the proof


def test_a_damaged_step_can_be_saved_again(saved, like, sharding):
    shutil.rmtree(saved / "5" / "state")
    checkpoints = Checkpoints(saved)
    restored = checkpoints.restore(like)
    assert restored
    assert restored[0] == 4
    checkpoints.save(5, jax.device_put(_state(5), sharding), seconds=2.5)
    checkpoints.close()
    assert _restore(saved, like) == 5


def test_a_change_that_no_format_notices_is_noticed(saved, like, capsys):
    proof = saved / "5" / "proof" / "metadata"
    other = (saved / "4" / "proof" / "metadata").read_text()
    proof.write_text(other)
    assert _restore(saved, like) == 4
    assert "the fingerprint of ['bf16']" in capsys.readouterr().err


def test_all_damaged_is_an_error_and_nothing_is_touched(saved, like):
    for step in ("3", "4", "5"):
        _cut(saved / step / "proof" / "metadata")
    before = _files(saved)
    checkpoints = Checkpoints(saved)
    with pytest.raises(UserError, match=r"checkpoints/5: .*; none of the 3 checkpoints") as error:
        checkpoints.restore(like)
    checkpoints.close()
    assert "\n" not in str(error.value)
    assert _files(saved) == before


def test_another_state_is_named(saved, like, sharding):
    like["f32"] = jax.ShapeDtypeStruct((7,), jnp.float32, sharding=sharding)
    checkpoints = Checkpoints(saved)
    expected = (
        r"/5: the state differs: \['f32'\] float32\[3000\] there and"
        r" float32\[7\] here; .* expected one of the same flags and version of the code, or another"
    )
    with pytest.raises(UserError, match=expected):
        checkpoints.restore(like)
    checkpoints.close()


def test_a_state_that_is_not_finite_is_not_saved(tmp_path, sharding):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    state = _state(1)
    state["bf16"] = state["bf16"].at[1, 4].set(jnp.nan)
    with pytest.raises(DivergedError, match=r"step 7: not finite in the state: \['bf16'\] bf"):
        checkpoints.save(7, jax.device_put(state, sharding), seconds=0)
    checkpoints.close()
    assert not _files(tmp_path)


def _listing(folder):
    """All that a reader could change: names, sizes, times."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in [folder, *folder.rglob("*")]
    }


def test_reading_changes_nothing(saved, like):
    (saved / "6.orbax-checkpoint-tmp").mkdir()  # as a writer has it while it writes
    _cut(saved / "5" / "proof" / "metadata")
    before = _listing(saved.parent)
    assert read(saved, like)[0] == 4
    step, state, seconds = read(saved, like, step=3)
    assert (step, seconds, steps(saved)) == (3, 1.5, [3, 4, 5])
    jax.tree.map(np.testing.assert_array_equal, state, _state(3))
    with pytest.raises(UserError, match=r"no step 2; expected one of 3, 4, 5"):
        read(saved, like, step=2)
    with pytest.raises(UserError, match=r"/5: .* none of the 1 checkpoints"):
        read(saved, like, step=5)
    assert _listing(saved.parent) == before


def test_a_folder_that_may_only_be_read_can_be_read(saved, like):
    for path in [*saved.rglob("*"), saved]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert read(saved, like)[0] == 5


def test_no_checkpoint_to_read(tmp_path, like):
    with pytest.raises(UserError, match="nowhere: holds no checkpoint"):
        read(tmp_path / "nowhere", like)
    assert steps(tmp_path / "nowhere") == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: Not a directory; expected a folder of checkpoints"):
        steps(tmp_path / "file")
    assert not (tmp_path / "nowhere").exists()


def test_what_the_writer_deletes_meanwhile_is_not_called_damaged(
    saved, like, sharding, monkeypatch, capsys
):
    """The newest is gone, and a newer one there, before its arrays are read."""
    restore, asked = ocp.StandardCheckpointHandler.restore, []

    def slow(self, place, args):
        asked.append(place.parent.name)
        if len(asked) == 1:
            os.rename(saved / "5", saved / "6")
            proof = saved / "6" / "proof" / "metadata"
            proof.write_text(proof.read_text().replace("2.5", "3.0"))
        return restore(self, place, args=args)

    monkeypatch.setattr(ocp.StandardCheckpointHandler, "restore", slow)
    step, _, seconds = read(saved, like)
    assert (step, seconds, asked) == (6, 3.0, ["5", "6"])
    assert not capsys.readouterr().err


def test_a_chosen_checkpoint_is_kept_beside_the_last(tmp_path, sharding):
    checkpoints = Checkpoints(tmp_path)
    for step in range(1, 8):
        checkpoints.save(step, jax.device_put(_state(step), sharding), seconds=0)
        if step in (1, 3):
            checkpoints.keep(step)
    checkpoints.close()
    assert steps(tmp_path) == [3, 5, 6, 7]
