"""Teaching an encoder things and their boxes: which cells learn what, the boxes' loss, and what is not a region."""

import math

import pytest
import torch
from PIL import Image

from embodied.assistant import Assistant
from embodied.data.multimodal.sample import Sample
from embodied.lvlm.model import LVLM
from embodied.lvlm.tokenizers.text import TextTokenizer
from embodied.training.stages import check_stages
from embodied.training.visual_regions import VisualRegions, area, around, generalised_iou, regions

CHAT = {"_target_": "embodied.lvlm.chat.template.Template", "user": "{text}", "assistant": "A", "answer": " {text}</s>"}
NODE = {
    "encoder": {"_target_": "embodied.lvlm.encoders.convolution.ConvolutionalStem", "widths": [16, 32, 32], "size": 32},
    "connector": {"_target_": "embodied.lvlm.connectors.projection.LinearConnector"},
    "resolution": {"_target_": "embodied.lvlm.resolution.single.SingleView"},
    "backbone": {
        "_target_": "embodied.lvlm.backbones.causal.CausalBackbone",
        "config": {
            "model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 2, "intermediate_size": 32,
        },
    },
}  # fmt: skip
COLOURS = {"red": (220, 20, 20), "blue": (20, 20, 220)}
ANSWERS = [f"{colour} tile [{edge},{edge},{edge + 250},{edge + 250}]" for colour in COLOURS for edge in (0, 250, 500)]


def an_assistant():
    torch.manual_seed(0)
    tokenizer = TextTokenizer.train([*ANSWERS, "A 0123456789"], 400).tokenizer
    return Assistant(LVLM.from_config(NODE, len(tokenizer)), tokenizer, CHAT)


def samples(folder):
    found = []
    for i, answer in enumerate(ANSWERS):
        picture = Image.new("RGB", (32, 32), (128, 128, 128))
        ((phrase, box),) = regions(answer)
        picture.paste(COLOURS[phrase.split()[0]], tuple(round(32 * edge) for edge in box))
        picture.save(folder / f"{i}.png")
        asked = {"role": "user", "content": [{"type": "image", "image": str(folder / f"{i}.png")}]}
        found.append(Sample(str(i), [asked, {"role": "assistant", "content": answer}]))
    return found


def test_descriptions_and_their_boxes_are_read_from_text():
    text = "small red ball [0,111,333,999], cone [1, 2, 3, 4]; and nothing [here]"
    assert [phrase for phrase, _ in regions(text)] == ["small red ball", "cone"]
    assert regions(text)[0][1] == pytest.approx((0, 1 / 9, 1 / 3, 1))
    assert regions("There is no box in this.") == []


def test_a_cell_learns_the_smallest_thing_around_whose_middle_it_lies():
    learner = VisualRegions.of(an_assistant(), ANSWERS)
    things = [
        ("red tile", (0.0, 0.0, 1.0, 1.0)),
        ("blue tile", (0.5, 0.5, 0.75, 0.75)),
        ("blue", (0.01, 0.9, 0.02, 0.95)),
    ]
    thing, words, boxes = learner._targets(things, 4, 4)
    grid = thing.view(4, 4)
    assert grid.tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 0]]  # the last is less than a cell
    assert boxes[10].tolist() == pytest.approx([0.5, 0.5, 0.75, 0.75, 0.625, 0.625])
    assert boxes[5].tolist() == pytest.approx([0, 0, 1, 1, 0.375, 0.375])
    names = [learner.assistant.tokenizer.decode(gram).strip() for gram in learner.words]
    said = lambda cell: {name for name, word in zip(names, words[cell].tolist(), strict=True) if word}  # noqa: E731
    assert said(5) == {"red", "red tile"} and said(10) == {"blue", "blue tile"} and said(12) == {"blue"}
    assert not words[0].any()


def test_generalised_iou_is_that_of_shapes_drawn_on_a_grid():
    random = torch.Generator().manual_seed(0)
    for _ in range(50):
        one, other = (torch.randint(0, 20, (4,), generator=random) for _ in range(2))
        boxes = [torch.cat([torch.minimum(b[:2], b[2:]), torch.maximum(b[:2], b[2:]) + 1]) for b in (one, other)]
        masks = [torch.zeros(21, 21, dtype=torch.bool) for _ in boxes]
        for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
            mask[y1:y2, x1:x2] = True
        union = (masks[0] | masks[1]).sum()
        where = (masks[0] | masks[1]).nonzero()
        hull = (where.amax(0) - where.amin(0) + 1).prod()
        expected = (masks[0] & masks[1]).sum() / union - (hull - union) / hull
        found = generalised_iou(boxes[0][None].float(), boxes[1][None].float())
        torch.testing.assert_close(found[0], expected.float())
    assert area((0.0, 0.5, 0.5, 1.0)) == 0.25
    reach = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    torch.testing.assert_close(around(torch.tensor([[0.5, 0.5]]), reach), torch.tensor([[0.4, 0.3, 0.8, 0.9]]))


def test_an_encoder_learns_where_things_are_and_nothing_else_of_the_model_moves(tmp_path):
    assistant = an_assistant()
    before = {name: value.clone() for name, value in assistant.state_dict().items()}
    learner = VisualRegions.of(assistant, ANSWERS)
    batch = assistant.batch(samples(tmp_path))
    optimizer = torch.optim.Adam(learner.parameters(), 0.01)
    first = {name: value.item() for name, value in learner.loss(batch).items()}
    assert first["loss"] == pytest.approx(4 * first["thing"] + 2 * first["words"] + first["boxes"], rel=1e-5)
    for _ in range(120):
        loss = learner.loss(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    last = {name: value.item() for name, value in learner.loss(batch).items()}
    assert last["boxes"] < 0.25 < first["boxes"] and last["words"] < 0.1 * first["words"] and last["thing"] < 0.1
    moved = {name for name, value in assistant.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith("model.vision.encoder.") for name in moved)

    learner.save_pretrained(tmp_path / "saved")
    again = VisualRegions(Assistant.from_pretrained(tmp_path / "saved"), list(learner.words))
    again.load_head(tmp_path / "saved")
    assert torch.equal(again.loss(batch)["loss"], learner.loss(batch)["loss"])


def test_the_loss_of_a_batch_is_that_of_its_cells(tmp_path):
    """Counted cell by cell from the features, with no thing in one of the pictures."""
    assistant = an_assistant()
    learner = VisualRegions.of(assistant, ANSWERS)
    rows = samples(tmp_path)[:2]
    rows[1].messages[1]["content"] = "nothing"
    batch = assistant.batch(rows)
    found = learner.loss(batch)
    told = torch.stack(
        [learner.head(features) for features in assistant.model.vision.features(learner.pictures(batch))]
    )
    thing, words, boxes = learner._targets(regions(ANSWERS[0]), 4, 4)
    things = torch.cat([thing, torch.zeros(16)])
    odds = told[..., 0].flatten().sigmoid()
    expected = -(things * odds.log() + (1 - things) * (1 - odds).log()).mean()
    torch.testing.assert_close(found["thing"], expected)
    cells = thing.nonzero().flatten().tolist()
    odds = told[0, cells, 1:-4].sigmoid()
    said = words[cells]
    torch.testing.assert_close(found["words"], -(said * odds.log() + (1 - said) * (1 - odds).log()).mean())
    each = []
    for cell in cells:
        left, up, right, down = (math.log1p(math.exp(value)) for value in told[0, cell, -4:].tolist())
        x, y = boxes[cell, 4:].tolist()
        each.append(
            1 - generalised_iou(torch.tensor([[x - left, y - up, x + right, y + down]]), boxes[cell : cell + 1, :4])
        )
    torch.testing.assert_close(found["boxes"], torch.cat(each).mean())

    rows[0].messages[1]["content"] = "nothing either"
    empty = learner.loss(assistant.batch(rows))
    assert empty["boxes"].item() == 0 and math.isfinite(empty["loss"].item())


def test_what_cannot_be_taught_is_said_in_one_line():
    assistant = an_assistant()
    with pytest.raises(ValueError, match=r"found no `description \[x1,y1,x2,y2\]` in the answers"):
        VisualRegions.of(assistant, ["a red tile"])
    blind = Assistant(
        LVLM.from_config({"backbone": NODE["backbone"]}, len(assistant.tokenizer)), assistant.tokenizer, CHAT
    )
    with pytest.raises(ValueError, match="objective: regions teaches an encoder, and this model has none"):
        VisualRegions.of(blind, ANSWERS)
    text = Sample("t", [{"role": "user", "content": "hello"}, {"role": "assistant", "content": ANSWERS[0]}])
    with pytest.raises(ValueError, match="objective: regions learns from samples of one picture, and one has 0"):
        VisualRegions.of(assistant, ANSWERS).loss(assistant.batch([text]))
    stage = {"train": {"encoder": "full", "backbone": "full"}, "data": ["x"], "lr": 1.0, "objective": "regions"}
    with pytest.raises(ValueError, match="teaches regions, which the encoder alone learns"):
        check_stages({"see": stage}, "stages")
