"""The published files become a diffusers folder, with every tensor in its place."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file

from benchmarks.opensora_conversion import released_shapes
from deployments.models.opensora import convert_opensora, released
from deployments.models.opensora.convert_opensora import (
    convert,
    convert_transformer_state_dict,
    main,
)
from deployments.models.opensora.loading import OpenSoraParts, load
from deployments.models.opensora.pipeline_opensora import OpenSoraPipeline
from deployments.models.opensora.released import transformer_origins
from deployments.models.opensora.transformer_opensora import OpenSoraTransformer3DModel
from tests.published_opensora import publish, tiny_sizes
from tests.tiny_opensora import tiny_clip, tiny_clip_tokenizer, tiny_text_encoders, tiny_vae

DATA = Path(__file__).resolve().parents[2] / "data" / "opensora"

# hpcai-tech/Open-Sora-v2's Open_Sora_v2.safetensors.
RELEASED_KEYS, RELEASED_PARAMETERS = 1082, 11_891_390_528


def small_state_dict() -> dict[str, torch.Tensor]:
    """Return a released network of one block of each kind, with random weights."""
    torch.manual_seed(0)
    shapes = released_shapes(hidden=16, head=8, depth=(1, 1))
    return {key: torch.randn(shape) for key, shape in shapes.items()}


def test_every_weight_of_the_released_network_finds_its_place() -> None:
    """Names, shapes and number of parameters, without the memory for them."""
    released = {key: torch.empty(s, device="meta") for key, s in released_shapes().items()}
    assert len(released) == RELEASED_KEYS
    converted = convert_transformer_state_dict(released)
    with torch.device("meta"):
        network = OpenSoraTransformer3DModel()
    expected = {key: tensor.shape for key, tensor in network.state_dict().items()}
    assert {key: tensor.shape for key, tensor in converted.items()} == expected
    for tensors in (released, converted):
        assert sum(tensor.numel() for tensor in tensors.values()) == RELEASED_PARAMETERS


def test_pairs_of_query_channels_become_neighbours() -> None:
    """Channel d turned with d + D/2 in the released network, 2i turns with 2i + 1 here."""
    state_dict = small_state_dict()
    converted = convert_transformer_state_dict(state_dict)
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    both_heads = [*order, *(8 + channel for channel in order)]
    for theirs, ours in (
        ("double_blocks.0.img_attn.q_proj", "transformer_blocks.0.attn.to_q"),
        ("double_blocks.0.txt_attn.k_proj", "transformer_blocks.0.attn.add_k_proj"),
        ("single_blocks.0.k_proj", "single_transformer_blocks.0.attn.to_k"),
    ):
        for kind in ("weight", "bias"):
            assert torch.equal(
                converted[f"{ours}.{kind}"], state_dict[f"{theirs}.{kind}"][both_heads]
            )
    scale = state_dict["double_blocks.0.txt_attn.norm.key_norm.scale"]
    assert torch.equal(converted["transformer_blocks.0.attn.norm_added_k.weight"], scale[order])
    values = state_dict["double_blocks.0.img_attn.v_proj.weight"]
    assert torch.equal(converted["transformer_blocks.0.attn.to_v.weight"], values)


def test_the_joint_layer_is_parted_and_the_last_modulation_turned() -> None:
    """Values first, then the MLP; (shift, scale) becomes (scale, shift)."""
    state_dict = small_state_dict()
    converted = convert_transformer_state_dict(state_dict)
    joint = state_dict["single_blocks.0.v_mlp.weight"]
    block = "single_transformer_blocks.0"
    assert torch.equal(converted[f"{block}.attn.to_v.weight"], joint[:16])
    assert torch.equal(converted[f"{block}.proj_mlp.weight"], joint[16:])
    shift, scale = state_dict["final_layer.adaLN_modulation.1.bias"].chunk(2)
    assert torch.equal(converted["norm_out.linear.bias"], torch.cat((scale, shift)))


@pytest.mark.parametrize(
    "key",
    [
        "img_in.weight",
        "double_blocks.0.img_attn.norm.query_norm.scale",
        "single_blocks.0.v_mlp.bias",
    ],
)
def test_a_missing_key_is_named(key: str) -> None:
    """A network with random weights in it would make noise without an error."""
    shapes = released_shapes()
    del shapes[key]
    with pytest.raises(ValueError, match=f"1 keys are missing, first: {key}"):
        transformer_origins(shapes)


@pytest.mark.parametrize("key", ["guidance_in.in_layer.weight", "double_blocks.3.img_attn.stray"])
def test_a_key_without_a_place_is_named(key: str) -> None:
    """Whatever it is, this network would ignore it."""
    with pytest.raises(ValueError, match=f"1 keys have no place, first: {key}"):
        transformer_origins(released_shapes() | {key: (1,)})


@pytest.mark.parametrize(
    "key", ["double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight"]
)
def test_a_fused_file_is_refused_with_the_reason(key: str) -> None:
    """Nothing in it tells how its channels are ordered."""
    with pytest.raises(ValueError, match=f"{key} is a fused layer.*do not tell in which order"):
        transformer_origins({key: (9216, 3072)})


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_sizes(monkeypatch)


@pytest.fixture(scope="module")
def _published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformer = load_file(DATA / "transformer_state_dict.safetensors")
    return publish(tmp_path_factory.mktemp("published") / "v2", transformer)


@pytest.fixture
def source(_published: Path, tmp_path: Path) -> Path:
    """What is published, for a test to damage."""
    return Path(shutil.copytree(_published, tmp_path / "source"))


@pytest.fixture(scope="module")
def converted(_published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    target = tmp_path_factory.mktemp("converted") / "opensora"
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny_sizes(monkeypatch)
        convert(_published, target)
    return target


@pytest.fixture(scope="module")
def parts(converted: Path) -> OpenSoraParts:
    return load(str(converted), "cpu")


@torch.no_grad()
def velocity(network: OpenSoraTransformer3DModel, case: dict[str, torch.Tensor]) -> torch.Tensor:
    return network(
        hidden_states=case["img"],
        cond=case["cond"],
        encoder_hidden_states=case["txt"],
        pooled_projections=case["y_vec"],
        timestep=case["timesteps"],
        img_ids=case["img_ids"][0],
        txt_ids=case["txt_ids"][0],
    ).sample


@pytest.mark.parametrize("name", ["t2v", "i2v_head"])
def test_a_converted_network_computes_what_the_authors_network_does(
    parts: OpenSoraParts, tmp_path: Path, name: str
) -> None:
    """Released layout, converted, loaded, saved and loaded again: the same output."""
    tensors = load_file(DATA / "transformer_forward.safetensors")
    prefix = f"{name}."
    case = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    once = velocity(parts.transformer, case)
    torch.testing.assert_close(once, case["output"], atol=5e-5, rtol=1e-4)
    parts.transformer.save_pretrained(tmp_path / "again")
    again = OpenSoraTransformer3DModel.from_pretrained(tmp_path / "again", local_files_only=True)
    assert torch.equal(velocity(again.eval(), case), once)


def test_the_other_networks_keep_their_weights(parts: OpenSoraParts) -> None:
    """In bfloat16: as published, and the text encoders rounded to it."""
    originals = {
        "vae": tiny_vae(),
        "text_encoder": tiny_clip(),
        "text_encoder_2": tiny_text_encoders()[3],
    }
    for name, original in originals.items():
        loaded = getattr(parts, name).state_dict()
        for key, weight in original.state_dict().items():
            assert torch.equal(loaded[key], weight.bfloat16().float()), (name, key)


def test_files_stay_in_half_precision(converted: Path) -> None:
    """The disk holds what the GPU will."""
    for path in converted.glob("*/*.safetensors"):
        assert {tensor.dtype for tensor in load_file(path).values()} == {torch.bfloat16}, path


def test_tokenizers_give_the_ids_of_the_published_ones(parts: OpenSoraParts, source: Path) -> None:
    """T5's is sentencepiece's; lengths are those to which prompts are padded."""
    t5 = sentencepiece.SentencePieceProcessor(str(source / released.T5_FOLDER / "spiece.model"))
    for prompt in ("a fox in the snow. 24 FPS. 4 motion score.", "A  dog,\njumping", ""):
        assert parts.tokenizer_2(prompt).input_ids == [*t5.encode(prompt), 1]
        assert parts.tokenizer(prompt).input_ids == tiny_clip_tokenizer()(prompt).input_ids
    assert parts.tokenizer_2.model_max_length == 512
    assert parts.tokenizer.model_max_length == 77
    # With another end token CLIP would pool another position.
    assert parts.text_encoder.config.eos_token_id == 2


def test_a_converted_folder_is_a_pipeline_of_diffusers(converted: Path) -> None:
    """The index names the class of each part."""
    pipeline = OpenSoraPipeline.from_pretrained(converted, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    video = pipeline(
        "a fox", height=16, width=32, num_frames=5, num_inference_steps=2, output_type="np"
    ).frames
    assert video[0].shape == (5, 16, 32, 3)


def test_the_command_says_what_it_writes(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And fails with a sentence when the target is there already."""
    target = tmp_path / "deep" / "target"
    assert main([str(source), str(target)]) == 0
    assert "Writing transformer: 110 tensors" in capsys.readouterr().out
    assert main([str(source), str(target)]) == 1
    assert f"{target} exists already" in capsys.readouterr().err
    assert [path.name for path in target.parent.iterdir()] == ["target"]


@pytest.mark.parametrize("name", released.PUBLISHED)
def test_a_missing_file_is_named(source: Path, tmp_path: Path, name: str) -> None:
    """Before anything is written."""
    path = source / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {name}"):
        convert(source, tmp_path / "target")
    assert not list(tmp_path.glob("target*"))


@pytest.mark.parametrize(
    ("part", "file"),
    [
        ("vae", released.VAE_FILE),
        ("text_encoder", f"{released.CLIP_FOLDER}/model.safetensors"),
        ("text_encoder_2", f"{released.T5_FOLDER}/model-00002-of-00002.safetensors"),
    ],
)
@pytest.mark.parametrize("damage", ["missing", "stray", "another shape"])
def test_a_key_of_another_part_that_does_not_fit_is_named(
    source: Path, tmp_path: Path, part: str, file: str, damage: str
) -> None:
    """Strict for all of them, and before anything is written."""
    tensors = load_file(source / file)
    key = max(tensors, key=lambda name: tensors[name].numel())
    if damage == "missing":
        del tensors[key]
        message = f"{part}: 1 keys are missing, first: "
    elif damage == "stray":
        tensors["stray.weight"] = torch.zeros(1)
        message = f"{part}: 1 keys have no place, first: stray.weight"
    else:
        tensors[key] = torch.zeros(7)
        message = rf"{part}: .* is \(7,\), expected "
    save_file(tensors, source / file)
    with pytest.raises(ValueError, match=message):
        convert(source, tmp_path / "target")
    assert not list(tmp_path.glob("target*"))


def test_a_conversion_that_was_killed_is_begun_anew(source: Path, tmp_path: Path) -> None:
    """What it left is not taken for finished."""
    left = tmp_path / "target.part" / "transformer" / "diffusion_pytorch_model.safetensors"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a file")
    (tmp_path / "target.part" / "stray.json").touch()
    convert(source, tmp_path / "target")
    assert load(str(tmp_path / "target"), "cpu")
    assert not (tmp_path / "target" / "stray.json").exists()
    assert not (tmp_path / "target" / ".lock").exists()
    assert not (tmp_path / "target.part").exists()


def test_a_conversion_that_fails_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty gibibytes of half a checkpoint would be hard to find."""

    def fail(*args: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(convert_opensora, "write_shards", fail)
    with pytest.raises(OSError, match="No space left"):
        convert(source, tmp_path / "target")
    assert not list(tmp_path.glob("target*"))


def test_two_conversions_do_not_write_one_folder(source: Path, tmp_path: Path) -> None:
    """The second is refused while the first is at work."""

    def second(line: str) -> None:
        with pytest.raises(FileExistsError, match="another process writes"):
            convert(source, tmp_path / "target")

    convert(source, tmp_path / "target", say=second)
    assert load(str(tmp_path / "target"), "cpu")


def test_a_disk_that_is_too_full_is_refused_before_it_is_written_to(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With both sizes."""
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**30, 2**30 - 2**20, 2**20)
    )
    with pytest.raises(OSError, match=r"too little disk: 0\.1 GiB are needed.*0\.0 GiB are free"):
        convert(source, tmp_path / "target")
