"""Encoders of `transformers`, tiny and random: a BERT, a CLIP, a T5; their states, their limits, their cache."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nirvana.condition import FrozenEncoder, TextConditioner, conditioner_from_config, frozen, has_minilm
from nirvana.condition.encodings import PART
from nirvana.errors import Refused

pytest.importorskip("transformers")

WORDS = ["a", "red", "blue", "circle", "square", "above", "left", "of", "the"]
TEXTS = ["a red circle", "the blue square above a red circle", "a", "", "left of the circle"]


def _tokenizer(folder: Path, template: str, special: dict[str, str], **options: Any) -> None:
    """A tokenizer of whole words that puts special tokens around a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = list(dict.fromkeys(special.values()))
    vocabulary = {word: number for number, word in enumerate([*names, *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    used = [(name, vocabulary[name]) for name in names if name in template]
    made.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    PreTrainedTokenizerFast(tokenizer_object=made, **special, **options).save_pretrained(folder)


def _bert(folder: Path) -> Any:
    from transformers import BertConfig, BertModel

    special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    _tokenizer(folder, "[CLS] $A [SEP]", special, model_max_length=16)
    config = BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    return BertModel(config)


def _clip(folder: Path) -> Any:
    from transformers import CLIPConfig, CLIPModel

    special = {"unk_token": "<unk>", "bos_token": "<start>", "eos_token": "<end>", "pad_token": "<end>"}
    _tokenizer(folder, "<start> $A <end>", special, model_max_length=12)
    sizes = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
    text = {**sizes, "vocab_size": 20, "max_position_embeddings": 12, "bos_token_id": 1, "eos_token_id": 2}
    return CLIPModel(CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 8, "patch_size": 4}))


def _t5(folder: Path) -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    special = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"}
    _tokenizer(folder, "$A </s>", special)
    config = T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=16, num_layers=3, num_heads=2, decoder_start_token_id=0)
    return T5ForConditionalGeneration(config)


MAKERS = {"bert": _bert, "clip": _clip, "t5": _t5}
AROUND = {"bert": 2, "clip": 2, "t5": 1}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each kind, as `save_pretrained` writes it: the whole model, of which only the text half is used."""
    made: dict[str, Path] = {}
    for name, make in MAKERS.items():
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp(name)
        model = make(folder)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        model.save_pretrained(folder)
        made[name] = folder
    return made


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """Nothing is known from another test."""
    frozen._memories.cache_clear()
    yield
    frozen._memories.cache_clear()


def _reference(name: str, folder: Path, text: str) -> Any:
    """All hidden states of one text by the library itself, and its own last one."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    kinds = {"bert": "BertModel", "clip": "CLIPTextModel", "t5": "T5EncoderModel"}
    model = getattr(transformers, kinds[name]).from_pretrained(folder)
    with torch.no_grad():
        out = model.eval()(
            **tokenizer(text, return_tensors="pt", return_token_type_ids=False), output_hidden_states=True
        )
    return out.last_hidden_state[0], [states[0] for states in out.hidden_states]


@pytest.mark.parametrize("name", list(MAKERS))
def test_states_are_those_of_the_library_text_by_text(name: str, folders: dict[str, Path]) -> None:
    last = FrozenEncoder.open(str(folders[name])).fitted(TEXTS)
    before = FrozenEncoder.open(str(folders[name]), -2).fitted(TEXTS)
    states, mask = last(TEXTS)
    penultimate, _ = before(TEXTS)
    assert states.shape == (len(TEXTS), last.places, 8) and last.places == 7 + AROUND[name]
    for row, text in enumerate(TEXTS):
        final, hidden = _reference(name, folders[name], text)
        assert mask[row].sum() == len(final)
        torch.testing.assert_close(states[row, mask[row]], final, atol=0.01, rtol=2e-3)  # kept in half precision
        torch.testing.assert_close(penultimate[row, mask[row]], hidden[-2], atol=0.01, rtol=2e-3)
        assert not states[row, ~mask[row]].any()


@pytest.mark.parametrize("name", ["bert", "clip"])
def test_long_texts_are_read_in_pieces_each_with_its_own_start_and_end(name: str, folders: dict[str, Path]) -> None:
    encoder = FrozenEncoder.open(str(folders[name]))
    window = {"bert": 14, "clip": 10}[name]
    text = " ".join(["red", "circle"] * window)
    reading = encoder.read(text)
    assert (encoder.window, reading.chunks, reading.whole, reading.kept) == (window, 2, False, 2 * window)
    piece, mask = encoder([" ".join(["red", "circle"] * (window // 2))])
    states, _ = encoder([text])
    torch.testing.assert_close(states[0], piece[0][mask[0]].repeat(2, 1), atol=1e-6, rtol=0)
    assert encoder.read("a red heptagon").unknown == (False, False, True)
    assert encoder.read("a red heptagon").tokens == ("a", "red", "heptagon")


def test_captions_are_encoded_once_for_all_trainings(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = FrozenEncoder.open(str(folders["bert"])).fitted(TEXTS)
    fresh = encoder(TEXTS)
    texts = [*TEXTS, *(f"a red circle {n}" for n in range(PART))]
    seen: list[tuple[int, int]] = []
    encoder.remember(texts, lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == [PART, len(texts)] and {total for _, total in seen} == {len(texts)}
    frozen._memories.cache_clear()
    again = FrozenEncoder(**vars(encoder))
    monkeypatch.setattr(frozen, "load", lambda *_: pytest.fail("the model is not needed any more"))
    again.remember(texts[::-1])
    states, mask = again(TEXTS)
    assert torch.equal(states, fresh[0]) and torch.equal(mask, fresh[1])


def test_a_damaged_or_half_written_cache_is_made_anew(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    from nirvana.files import cache_folder

    encoder = FrozenEncoder.open(str(folders["bert"])).fitted(TEXTS)
    expected = encoder(TEXTS)[0]
    for damage in ("states", "record"):
        frozen._memories.cache_clear()
        encoder.remember(TEXTS)
        (part,) = cache_folder("encodings").glob("*/*.npy")
        if damage == "states":
            data = bytearray(part.read_bytes())
            data[-1] ^= 1
            part.write_bytes(data)
        else:
            part.with_suffix(".json").unlink()
        frozen._memories.cache_clear()
        encoder.remember(TEXTS)
        assert torch.equal(encoder(TEXTS)[0], expected)


def test_its_weights_are_in_no_checkpoint_and_another_model_in_its_place_is_noticed(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    conditioner = TextConditioner(FrozenEncoder.open(str(folders["bert"])).fitted(TEXTS), 4, examples=("a red circle",))
    assert {name.split(".")[0] for name in conditioner.state_dict()} == {"norm", "vector", "nothing"}
    again = conditioner_from_config(conditioner.config())
    again.load_state_dict(conditioner.state_dict())
    for name, value in conditioner(texts=TEXTS).items():
        assert torch.equal(again(texts=TEXTS)[name], value)  # type: ignore[call-arg]
    changed = {**conditioner.config(), "encoder": {**conditioner.encoder.config(), "sha256": "0" * 64}}
    with pytest.raises(Refused, match="other weights than the model was trained with"):
        conditioner_from_config(changed)(texts=TEXTS)  # type: ignore[call-arg]


def test_what_is_not_there_is_named_with_the_way_out(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for layer in (-9, -5, 4):
        with pytest.raises(Refused, match=rf"no layer {layer}; it has 4: -1 is its last, -4 its first"):
            FrozenEncoder.open(str(folders["bert"]), layer)
    with pytest.raises(Refused, match="is not there; name a folder with a text model"):
        FrozenEncoder.open(str(tmp_path / "nothing"))
    with pytest.raises(Refused, match=r"cannot be read .* name a folder"):
        FrozenEncoder.open(str(tmp_path))
    with pytest.raises(Refused, match=r"cannot be read .* fetch it first"):
        FrozenEncoder.open("hf:no-such-owner/no-such-model")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "minilm" in name else found(name))
    frozen.load.cache_clear()
    assert not has_minilm()
    with pytest.raises(Refused, match="minilm is not installed; pip install"):
        FrozenEncoder.open("minilm")
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(Refused, match=r"needs the package 'transformers' .*nirvana\[text\]"):
        FrozenEncoder.open("minilm")


def test_what_cannot_be_read_is_refused_in_a_line(folders: dict[str, Path], tmp_path: Path) -> None:
    whole = folders["bert"]

    def copy(name: str) -> Path:
        return Path(shutil.copytree(whole, tmp_path / name))

    for file in (silent := copy("no tokenizer")).glob("*token*"):
        file.unlink()
    (damaged := copy("damaged") / "model.safetensors").write_bytes(bytes(100))
    config = json.loads((copy("other sizes") / "config.json").read_text())
    (tmp_path / "other sizes" / "config.json").write_text(json.dumps({**config, "hidden_size": 12}))
    (copy("no model") / "config.json").write_text('{"model_type": "vit"}')
    for folder in (silent, damaged.parent, tmp_path / "other sizes", tmp_path / "no model"):
        with pytest.raises(Refused, match=r"(cannot be read|no text encoder) \(.*name a folder with a text") as refused:
            FrozenEncoder.open(str(folder))
        assert "\n" not in str(refused.value)


def test_another_tokenizer_in_its_place_is_noticed_and_so_is_a_folder_that_moved(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    place = Path(shutil.copytree(folders["bert"], tmp_path / "encoder"))
    config = FrozenEncoder.open(str(place)).fitted(TEXTS).config()
    older = {name: value for name, value in config.items() if name != "vocabulary"}
    tokenizer = (place / "tokenizer.json").read_text()
    (place / "tokenizer.json").write_text(tokenizer.replace('"blue"', '"blau"'))
    frozen.load.cache_clear()
    with pytest.raises(Refused, match="has other tokens than the model was trained with; put the old ones back"):
        frozen.frozen_from_config(config)(["a blue circle"])
    assert frozen.frozen_from_config(older).config() == older  # of a time when it was not noted down
    frozen.frozen_from_config(older)(["a blue circle"])
    place.rename(tmp_path / "elsewhere")
    with pytest.raises(Refused, match=r"was in .*encoder, which is not there; put the folder back"):
        frozen.frozen_from_config(config)(["a red circle"])


def test_siglip_is_read_by_its_text_half(folders: dict[str, Path], tmp_path: Path) -> None:
    from transformers import SiglipConfig, SiglipModel, SiglipTextModel

    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    text = {**sizes, "vocab_size": 20, "max_position_embeddings": 12}
    shutil.copytree(folders["bert"], tmp_path / "siglip", ignore=shutil.ignore_patterns("config.json", "*.safetensors"))
    SiglipModel(
        SiglipConfig(text_config=text, vision_config={**sizes, "image_size": 8, "patch_size": 4})
    ).save_pretrained(tmp_path / "siglip")
    encoder = FrozenEncoder.open(str(tmp_path / "siglip"))
    loaded = frozen.load(encoder.source)
    assert isinstance(loaded.model, SiglipTextModel) and (encoder.width, encoder.window) == (8, 10)
    states, _ = encoder(["a red circle"])
    ids = torch.tensor([loaded.tokenizer("a red circle").input_ids])
    with torch.no_grad():
        expected = loaded.model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(states, expected, atol=0.01, rtol=2e-3)


@pytest.mark.skipif(not has_minilm(), reason="the packaged encoder is not installed")
def test_the_packaged_encoder_tells_words_apart_by_their_meaning() -> None:
    encoder = FrozenEncoder.open("minilm").fitted(["a happy dog", "a joyful puppy", "tax law"])
    states, mask = encoder(["a happy dog", "a joyful puppy", "tax law"])
    means = np.stack([row[seen].mean(0).numpy() for row, seen in zip(states, mask, strict=True)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    close, far, other = means[0] @ means[1], means[0] @ means[2], means[1] @ means[2]
    assert close > 0.6 > 0.3 > max(far, other)
