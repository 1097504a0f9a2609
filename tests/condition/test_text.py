"""Texts as conditions: the null, what is encoded once, long texts, a class and a text at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nirvana.condition import (
    JointEncoder,
    LabelAndTextConditioner,
    LabelConditioner,
    TextConditioner,
    conditioner_from_config,
    joint_config,
)
from nirvana.condition.config import encoder_from_config
from nirvana.condition.reading import MOST_CHUNKS
from nirvana.condition.tokens import learn
from nirvana.errors import Refused

CAPTIONS = ["a red circle", "a blue circle", "a red square to the left of a blue circle"]
LONG = "a red circle " * 20


def encoder(places: int = 12) -> JointEncoder:
    torch.manual_seed(0)
    made = JointEncoder(learn(CAPTIONS * 2, 100), width=16, depth=2, places=places)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.3)
    return made


def conditioner(places: int = 12) -> TextConditioner:
    made = TextConditioner(encoder(places), 8, 0.2, tuple(CAPTIONS[:2]))
    with torch.no_grad():
        made.nothing.normal_()
    return made


def test_a_text_is_the_same_alone_and_among_others() -> None:
    made = conditioner().eval()
    together = made(texts=CAPTIONS)
    for row, text in enumerate(CAPTIONS):
        alone = made(texts=[text])
        seen = alone["tokens_mask"][0]
        assert torch.equal(together["tokens_mask"][row], seen)
        torch.testing.assert_close(together["vector"][row], alone["vector"][0], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(together["tokens"][row, seen], alone["tokens"][0, seen], atol=1e-6, rtol=1e-5)
    assert together["tokens"].shape == (3, 12, 16)
    assert made.train()(texts=CAPTIONS[:2])["tokens"].shape == (2, 4, 16)  # no padding to be computed with
    assert together["tokens_mask"].sum(1).tolist() == [len(made.read(text).tokens) + 1 for text in CAPTIONS]


def test_the_vector_is_the_mean_of_the_tokens_that_count() -> None:
    made = conditioner()
    cond = made(texts=CAPTIONS[:1])
    seen = cond["tokens"][0][cond["tokens_mask"][0]]
    torch.testing.assert_close(cond["vector"][0], made.vector(made.norm(seen.mean(0))))


def test_every_token_matters_to_every_state_and_the_padding_to_none() -> None:
    made = encoder()
    states, mask = made(["a red circle"])
    other, _ = made(["a blue circle"])
    assert ((states - other)[0, mask[0]].abs().amax(-1) > 1e-4).all()
    wide = JointEncoder(made.tokens, width=16, depth=2, places=30)
    weights = made.state_dict()
    weights["network.places.weight"] = torch.cat([weights["network.places.weight"], torch.ones(18, 16)])
    wide.load_state_dict(weights)
    again, _ = wide(["a red circle"])
    torch.testing.assert_close(again[0, : mask.sum()], states[0, mask[0]], atol=1e-6, rtol=1e-5)


def test_empty_and_dropped_texts_are_the_null_condition() -> None:
    made = conditioner()
    cond = made(drop=torch.tensor([False, True, False]), texts=["", "a red circle", "a red circle"])
    null = made.null(cond)
    for name in ("vector", "tokens_mask"):
        assert torch.equal(cond[name][:2], null[name][:2])
        assert not torch.equal(cond[name][2], null[name][2])
    assert {name: value.shape for name, value in null.items()} == {name: value.shape for name, value in cond.items()}
    without = made(torch.zeros(2, dtype=torch.int64))
    assert torch.equal(without["vector"], null["vector"][:2]) and not without["tokens_mask"].any()


def test_equal_texts_are_encoded_once() -> None:
    made = conditioner()
    asked: list[list[str]] = []
    forward = made.encoder.forward  # type: ignore[union-attr]
    made.encoder.forward = lambda texts: asked.append(list(texts)) or forward(texts)  # type: ignore[union-attr]
    cond = made(texts=["a red circle", "a blue circle", "a red circle"])
    assert asked == [["a red circle", "a blue circle"]]
    assert torch.equal(cond["tokens"][0], cond["tokens"][2]) and not torch.equal(cond["tokens"][0], cond["tokens"][1])


def test_a_long_text_is_read_in_pieces_and_nothing_is_cut_in_silence() -> None:
    made = encoder(places=9)
    reading = made.read("a red circle a blue circle a red square")
    assert (len(reading.tokens), reading.kept, reading.chunks, reading.whole) == (9, 9, 2, False)
    assert "read in 2 pieces of 8" in str(reading.sentence())
    states, mask = made(["a red circle a blue circle a red square", "a red circle"])
    assert mask.sum(1).tolist() == [9 + 2, 3 + 1] and states.shape[1] == 11
    first, last = made(["a red circle a blue circle a red"])[0][0], made(["square"])[0][0]
    torch.testing.assert_close(states[0], torch.cat([first[:9], last[:2]]), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(states[1, :4], made(["a red circle"])[0][0, :4], atol=1e-6, rtol=1e-5)
    whole = made.read(LONG * 2)
    assert whole.kept == 8 * MOST_CHUNKS and whole.chunks == MOST_CHUNKS
    assert f"{len(whole.tokens) - whole.kept} of its {len(whole.tokens)} tokens are dropped" in str(whole.sentence())
    assert made([LONG * 2])[1].sum() == MOST_CHUNKS * 9


def test_what_is_strange_is_said() -> None:
    made = encoder()
    assert made.read("a red circle").sentence() is None
    assert "empty" in str(made.read("  ").sentence())
    said = str(made.read("a red circle \0").sentence())
    assert "unknown to the model" in said and made.read("a red circle \0").unknown[:3] == (False, False, False)
    assert made(["x" * 100_000])[0].isfinite().all() and made(["\N{HEAVY BLACK HEART}سلام\0"])[0].isfinite().all()


def test_gradients_reach_the_tokens_of_the_text_and_the_null_vector_alone_where_it_is_dropped() -> None:
    made = conditioner()
    made(drop=torch.tensor([True]), texts=["a red circle"])["vector"].sum().backward()
    assert made.nothing.grad is not None and made.nothing.grad.eq(1).all()
    assert made.vector.weight.grad is None or not made.vector.weight.grad.any()
    made(texts=["a red circle"])["tokens"].square().sum().backward()
    assert isinstance(made.encoder, JointEncoder)
    grad = made.encoder.network.tokens.weight.grad
    assert grad is not None
    seen = {made.encoder.tokens.start, *made.encoder.tokens.ids("a red circle")}
    # Places behind the text are token 0, which only padding has: its state is no condition, but is in this sum.
    assert {row for row in range(len(grad)) if grad[row].any()} - {0} == seen


def both() -> LabelAndTextConditioner:
    return LabelAndTextConditioner(LabelConditioner(("cat", "dog"), 8, 0.1), TextConditioner(encoder(), 8, 0.1))


def test_a_class_and_a_text_add_up_and_each_can_be_missing() -> None:
    made = both()
    labels, texts = torch.tensor([1, 1]), ["a red circle", "a red circle"]
    cond = made(labels, None, texts)
    torch.testing.assert_close(cond["vector"], made.text(texts=texts)["vector"] + made.label(labels)["vector"])
    drop = torch.tensor([[True, False], [False, True]])
    parts = made(labels, drop, texts)
    nothing, null = made.text.nothing, made.label.embedding.weight[2]
    torch.testing.assert_close(parts["vector"][0], made.text(texts=texts)["vector"][0] + null)
    torch.testing.assert_close(parts["vector"][1], nothing + made.label(labels)["vector"][1])
    assert parts["tokens_mask"].any(1).tolist() == [True, False]
    whole = made(labels, torch.tensor([True, True]), texts)
    for name in ("vector", "tokens_mask"):
        assert torch.equal(whole[name], made.null(cond)[name])


def test_one_coin_drops_both_or_one() -> None:
    coin = torch.tensor([0.0, 0.099, 0.1, 0.199, 0.2, 0.299, 0.3, 0.99])
    expected = [[True, True], [True, True], [True, False], [True, False], [False, True], [False, True]]
    assert both().dropped(coin).tolist() == [*expected, [False, False], [False, False]]
    assert conditioner().dropped(torch.tensor([0.19, 0.2])).tolist() == [True, False]


@pytest.mark.parametrize("made", [conditioner(), both()], ids=["text", "both"])
def test_config_round_trip(made: TextConditioner | LabelAndTextConditioner) -> None:
    again = conditioner_from_config(made.config())
    again.load_state_dict(made.state_dict())
    labels, texts = torch.tensor([0, 1]), ["a red circle", ""]
    for name, value in made(labels, None, texts).items():
        assert torch.equal(again(labels, None, texts)[name], value)
    assert again.config() == made.config() and again.examples == made.examples


def test_a_described_encoder_has_room_for_the_longest_caption() -> None:
    made = encoder_from_config(joint_config(CAPTIONS))
    assert all(made.read(text).whole for text in CAPTIONS)
    assert max(len(made.read(text).tokens) for text in CAPTIONS) + 1 == made.places


def test_a_label_is_no_prompt() -> None:
    with pytest.raises(Refused, match="takes prompts, not labels"):
        conditioner().index("cat")
    with pytest.raises(Refused, match="one dim and one drop"):
        LabelAndTextConditioner(LabelConditioner(("cat",), 4), TextConditioner(encoder(), 8))


def test_null_rows_attend_to_nothing_of_the_text() -> None:
    made = conditioner()
    cond = made(texts=["a red circle", ""])
    assert isinstance(cond["tokens_mask"], Tensor)
    assert cond["tokens_mask"].any(1).tolist() == [True, False]
