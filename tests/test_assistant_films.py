"""An assistant watches films: frames in order, of any number, and it can say what came first."""

import av
import numpy as np
import pytest
import torch

from embodied.assistant import Assistant
from embodied.data.multimodal.films import FilmSampling
from embodied.data.multimodal.sample import BrokenSample, Sample
from embodied.lvlm.model import LVLM
from embodied.lvlm.tokenizers.text import TextTokenizer

CHAT = {
    "_target_": "embodied.lvlm.chat.template.Template",
    "user": "Q: {text} ",
    "assistant": "A:",
    "answer": " {text}</s>",
    "video": "<{frames}>",
    "frame": "{seconds}{tokens}",
}
COLOURS = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}
QUESTION = "which came first?"
VIT = {"image_size": 16, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VIT |= {"intermediate_size": 32}


def write(path, colours):
    """A film of one frame of each colour, two a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=2, options={"crf": "0"})
        stream.width, stream.height, stream.pix_fmt = 16, 16, "rgb24"
        for colour in colours:
            image = np.full((16, 16, 3), COLOURS[colour], np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return str(path)


def asked(film, question=QUESTION):
    return [{"role": "user", "content": [{"type": "video", "video": film}, {"type": "text", "text": question}]}]


def new(video=None, connector=None, node=None, **model) -> Assistant:
    """With frames as `video` says, and `node` for `model.video`."""
    torch.manual_seed(0)
    tokenizer = TextTokenizer.train([QUESTION, "Q: A: <> 0.0 1.5", *COLOURS] * 2, 400).tokenizer
    config = {
        "video": node,
        "encoder": {
            "_target_": "embodied.lvlm.encoders.convolution.ConvolutionalStem", "widths": [16, 32], "size": 16,
        },
        "connector": connector or {"_target_": "embodied.lvlm.connectors.projection.LinearConnector"},
        "resolution": {"_target_": "embodied.lvlm.resolution.single.SingleView"},
        "backbone": {
            "_target_": "embodied.lvlm.backbones.causal.CausalBackbone",
            "config": {
                "model_type": "llama", "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
                "intermediate_size": 96, "tie_word_embeddings": True,
            },
        },
    }  # fmt: skip
    return Assistant(LVLM.from_config(config | model, len(tokenizer)), tokenizer, CHAT, video=video).eval()


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Films that begin with one colour and end with another, of two lengths."""
    folder = tmp_path_factory.mktemp("films")
    pairs = [(a, b) for a in COLOURS for b in COLOURS if a != b]
    made = {(a, b): write(folder / f"{a}-{b}.mp4", [a, a, b, b]) for a, b in pairs}
    return made | {(a, b, "short"): write(folder / f"{a}-{b}-short.mp4", [a, b]) for a, b in pairs}


def lessons(films):
    return [
        Sample("/".join(name), [*asked(film), {"role": "assistant", "content": name[0]}])
        for name, film in films.items()
    ]


@pytest.fixture(scope="module")
def trained(films):
    assistant = new(video={"frames": 4})
    batch = assistant.batch(lessons(films))
    optimizer = torch.optim.AdamW(assistant.parameters(), 3e-3)
    for _ in range(60):
        loss = assistant.loss(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return assistant


def test_it_learns_which_colour_came_first(trained, films):
    assert trained.respond([asked(film) for film in films.values()], max_new_tokens=6) == [name[0] for name in films]


def test_answers_to_films_of_two_lengths_do_not_depend_on_the_batch(trained, films):
    rows = [trained.prepare(asked(film), prompt=True) for film in films.values()]
    assert len({len(row.pictures[0].frames) for row in rows}) == 2
    together = trained.read(rows)
    for i, row in enumerate(rows):
        torch.testing.assert_close(trained.read([row]).hidden[0], together.hidden[i], atol=1e-5, rtol=0)


def test_frames_are_read_in_order_and_their_times_are_said(films):
    assistant = new(video={"frames": 4})
    ready = assistant.prepare(asked(films["red", "blue"]), prompt=True)
    (clip,) = ready.pictures
    assert clip.seconds == (0.0, 0.5, 1.0, 1.5)
    brightest = [int(frame.views[0][0].mean((1, 2)).argmax()) for frame in clip.frames]
    assert brightest == [0, 0, 2, 2]
    words = assistant.tokenizer.decode(
        [i for i, slot in zip(ready.encoded.ids, ready.encoded.slots, strict=True) if not slot]
    )
    assert "".join(words.split()).startswith("Q:<0.00.51.01.5>")
    assert sum(ready.encoded.slots) == sum(map(len, assistant.model.vision(ready.pictures)))


@pytest.mark.parametrize(
    "parts",
    [
        {"node": "together", "connector": {"_target_": "embodied.lvlm.connectors.temporal.TemporalModule"}},
        {
            "node": {
                "_target_": "embodied.lvlm.encoders.spacetime.SpaceTimeTransformer",
                "config": VIT | {"model_type": "timesformer", "num_frames": 2},
            },
        },
    ],
)
def test_films_read_as_a_whole_are_learned_saved_and_answered(films, tmp_path, parts):
    assistant = new(video={"frames": 2}, **parts)
    batch = assistant.batch(lessons(films)[:3])
    loss = assistant.loss(batch)["loss"]
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in assistant.model.vision.connector.parameters())
    assistant.save_pretrained(tmp_path / "model")
    again = Assistant.from_pretrained(tmp_path / "model")
    assert again.video == FilmSampling(frames=2)
    assert torch.equal(again.loss(batch)["loss"], loss)
    assert again.respond([asked(film) for film in films.values()], max_new_tokens=2)


def test_beside_the_text_a_film_leaves_one_mark_and_all_its_frames_are_seen(films):
    assistant = new(placement="beside", video={"frames": 4})
    ready = assistant.prepare(asked(films["red", "blue"]), prompt=True)
    assert sum(ready.encoded.slots) == 1
    media = assistant.model.embed(assistant._batch(assistant.collate([ready]))).sight.media
    assert torch.equal(media[0], assistant.model.vision(ready.pictures)[0]) and media.shape[1] == 4 * 16


def test_a_broken_film_is_named_with_its_sample(tmp_path, films):
    broken = tmp_path / "cut.mp4"
    broken.write_bytes(b"\0" * 100)
    for film, says in ((tmp_path / "gone.mp4", "missing"), (broken, "damaged")):
        sample = Sample("lost/7", [*asked(str(film)), {"role": "assistant", "content": "red"}])
        with pytest.raises(BrokenSample, match=rf"^{film}, sample 'lost/7': .*{says}[^\n]*$") as fault:
            new().batch([sample])
        assert fault.value.reason in ("missing video", "corrupt video")


def test_a_film_that_the_encoder_cannot_read_is_named_with_its_sample(films):
    config = VIT | {"model_type": "videomae", "num_frames": 4, "use_mean_pooling": False}
    assistant = new(
        video={"frames": 4},
        node={"_target_": "embodied.lvlm.encoders.spacetime.SpaceTimeTransformer", "config": config},
    )
    sample = Sample("short/1", [*asked(films["red", "blue", "short"]), {"role": "assistant", "content": "red"}])
    with pytest.raises(BrokenSample, match=r"short\.mp4, sample 'short/1': .*reads 4 frames, got 2"):
        assistant.batch([sample])


@pytest.mark.parametrize(
    "video, says",
    [
        ({"frames": 4, "fps": 2}, "either frames or fps"),
        ({"frame": 4}, "video has no 'frame'; did you mean 'frames'"),
        ({"frames": 0}, "video.frames must be positive, got 0"),
        ({"spread": "all"}, "video.spread is one of start, ends, middle"),
    ],
)
def test_a_wrong_setting_is_named(video, says):
    with pytest.raises(ValueError, match=says):
        FilmSampling.from_dict(video)
