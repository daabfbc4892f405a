"""Video encoders: frames one by one and pooled, and transformers' space-time models, equal what they should."""

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import TimesformerConfig, TimesformerModel, VideoMAEConfig, VideoMAEModel
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

from embodied.building import build
from embodied.lvlm.encoders.qwen import QwenVision
from embodied.lvlm.encoders.spacetime import QwenVideo, SpaceTimeTransformer
from embodied.lvlm.encoders.video import FrameEncoder
from embodied.lvlm.encoders.vision import VisionTransformer

VIT = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
VIT |= {"intermediate_size": 64}
SIGLIP = VIT | {"model_type": "siglip_vision_model"}
TIMESFORMER = VIT | {"model_type": "timesformer", "num_frames": 4}
VIDEOMAE = VIT | {"model_type": "videomae", "num_frames": 4, "use_mean_pooling": False}
QWEN = {"depth": 2, "embed_dim": 32, "hidden_size": 48, "num_heads": 4, "mlp_ratio": 2, "patch_size": 4}


def random_weights(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return module.eval()


def frames_of(pixels=(2, 4, 3, 32, 32), seed=0):
    return torch.randn(pixels, generator=torch.Generator().manual_seed(seed))


def by_frame(**options):
    return random_weights(FrameEncoder(VisionTransformer(SIGLIP), **options))


def test_frames_follow_one_another():
    encoder, pixels = by_frame(), frames_of()
    alone = torch.cat([encoder.encoder.encode(pixels[:, t]) for t in range(4)], dim=1)
    torch.testing.assert_close(encoder.encode(pixels), alone, atol=1e-5, rtol=0)
    assert encoder.layout(4, 32, 32) == (4, 4, 4) and encoder.tokens(4, 32, 32) == 64


def test_one_frame_is_a_picture_however_it_is_pooled():
    pixels = frames_of((2, 1, 3, 32, 32))
    for options in ({}, {"pool": "mean"}, {"pool": "adaptive"}):
        encoder = by_frame(**options)
        assert torch.equal(encoder.encode(pixels), encoder.encoder.encode(pixels[:, 0]))


def test_mean_and_adaptive_pooling_average():
    pixels, features = frames_of(), by_frame().encode(frames_of()).view(2, 4, 4, 4, 32)
    torch.testing.assert_close(by_frame(pool="mean").encode(pixels), features.mean(1).flatten(1, 2))
    pooled = by_frame(pool="adaptive", times=2, grid=[2, 4])
    expected = torch.stack([features[:, 2 * t : 2 * t + 2].mean(1) for t in range(2)], 1)
    expected = (expected[:, :, 0::2] + expected[:, :, 1::2]) / 2
    torch.testing.assert_close(pooled.encode(pixels), expected.flatten(1, 3), atol=1e-5, rtol=0)
    assert pooled.layout(4, 32, 32) == (2, 2, 4)


def test_spatial_and_temporal_means_as_video_chatgpt_joins_them():
    """Its `get_spatio_temporal_features_torch` by hand in numpy: time first, filled up with zeros, then space."""
    features = by_frame().encode(frames_of()).view(2, 4, 16, 32).detach().numpy()
    expected = np.zeros((2, 6 + 16, 32), np.float32)
    expected[:, :4], expected[:, 6:] = features.mean(2), features.mean(1)
    encoder = by_frame(pool="spatial_temporal", times=6)
    np.testing.assert_allclose(encoder.encode(frames_of()).detach().numpy(), expected, atol=1e-5)
    assert encoder.tokens(4, 32, 32) == 22
    with pytest.raises(ValueError, match="7 frames are more than times=6"):
        encoder.encode(frames_of((1, 7, 3, 32, 32)))


@pytest.mark.parametrize(
    "config, cls, kind",
    [(TIMESFORMER, TimesformerModel, TimesformerConfig), (VIDEOMAE, VideoMAEModel, VideoMAEConfig)],
)
def test_space_time_models_equal_transformers(config, cls, kind):
    encoder, pixels = random_weights(SpaceTimeTransformer(config)), frames_of()
    reference = cls(kind(**{k: v for k, v in config.items() if k != "model_type"})).eval()
    reference.load_state_dict(encoder.model.state_dict())
    expected = reference(pixel_values=pixels).last_hidden_state
    times, rows, columns = encoder.layout(4, 32, 32)
    assert (times, rows, columns) == ((4, 4, 4) if cls is TimesformerModel else (2, 4, 4))
    found = encoder.encode(pixels)
    assert found.shape == (2, encoder.tokens(4, 32, 32), 32)
    if cls is TimesformerModel:  # each place's times lie side by side there, each time's places here
        for time, place in ((0, 0), (3, 5), (1, 15)):
            assert torch.equal(found[:, time * 16 + place], expected[:, 1 + place * 4 + time])
    else:
        assert torch.equal(found, expected)


def test_timesformers_features_lie_where_their_patch_is():
    encoder, pixels = random_weights(SpaceTimeTransformer(TIMESFORMER)), frames_of()
    for layer in encoder.model.encoder.layer:  # without attention a patch only knows itself
        for attention in (layer.attention, layer.temporal_attention):
            attention.output.dense.weight.data.zero_()
        layer.temporal_dense.weight.data.zero_()
    changed = pixels.clone()
    changed[:, 2, :, 8:16, 24:] = torch.randn(2, 3, 8, 8)
    moved = (encoder.encode(changed) != encoder.encode(pixels)).any(-1)[0]
    assert moved.nonzero().flatten().tolist() == [2 * 16 + 1 * 4 + 3]


def test_frames_become_the_pixels_of_videomaes_processor():
    encoder = SpaceTimeTransformer(VIDEOMAE)
    noise = np.random.default_rng(0).integers(0, 256, (2, 41, 50, 3), np.uint8)
    pictures = [Image.fromarray(frame) for frame in noise]
    official = transformers.VideoMAEImageProcessorPil(
        size={"shortest_edge": 32},
        crop_size=32,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    expected = torch.as_tensor(np.array(official([pictures], return_tensors="np").pixel_values[0]))
    found = torch.stack([encoder.preprocess[0](picture) for picture in pictures])
    torch.testing.assert_close(found, expected.float(), atol=1e-6, rtol=0)


def test_qwen_attends_within_pairs_of_frames_as_transformers_does():
    encoder, pixels = random_weights(QwenVideo(QwenVision(QWEN))), frames_of((1, 4, 3, 16, 24))
    reference = Qwen2VisionTransformerPretrainedModel(Qwen2VisionTransformerPretrainedModel.config_class(**QWEN)).eval()
    reference.load_state_dict(encoder.encoder.model.state_dict())
    patches = []  # the official layout, one patch at a time: pair of frames, 2 x 2 groups, row by row
    for time in range(2):
        for place in range(6):
            top, left = divmod(place, 3)
            for inner in range(4):
                row, column = 8 * top + 4 * (inner // 2), 8 * left + 4 * (inner % 2)
                patch = pixels[0, 2 * time : 2 * time + 2, :, row : row + 4, column : column + 4]
                patches.append(patch.transpose(0, 1).flatten())
    output = reference(torch.stack(patches), grid_thw=torch.tensor([[2, 4, 6]]))
    torch.testing.assert_close(encoder.encode(pixels)[0], output.pooler_output, atol=1e-5, rtol=0)
    assert encoder.layout(4, 16, 24) == (2, 2, 3) and encoder.layout(3, 16, 24) == (2, 2, 3)


@pytest.mark.parametrize("make", [by_frame, lambda: random_weights(SpaceTimeTransformer(TIMESFORMER))])
def test_bytes_are_normalised_by_the_encoders_statistics(make):
    encoder = make()
    frames = torch.randint(0, 256, (1, 4, 32, 32, 3), dtype=torch.uint8)
    one = encoder.preprocess[0]
    pixels = torch.stack([one(Image.fromarray(frame.numpy())) for frame in frames[0]])
    torch.testing.assert_close(encoder(frames), encoder.encode(pixels.unsqueeze(0)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", [TIMESFORMER, VIDEOMAE])
def test_saved_it_loads_and_resolves_to_what_rebuilds_it(config, tmp_path):
    encoder, pixels = random_weights(SpaceTimeTransformer(config)), frames_of()
    encoder.model.save_pretrained(tmp_path, max_shard_size="20KB")
    loaded = SpaceTimeTransformer(checkpoint=str(tmp_path)).eval()
    assert torch.equal(loaded.encode(pixels), encoder.encode(pixels))
    again = SpaceTimeTransformer(**json.loads(json.dumps(loaded.resolved({"checkpoint": str(tmp_path)}))))
    again.load_state_dict(loaded.state_dict())
    assert torch.equal(again.eval().encode(pixels), encoder.encode(pixels))
    with torch.device("meta"):
        assert next(SpaceTimeTransformer(config).parameters()).is_meta


def test_the_frames_encoder_resolves_with_it(tmp_path):
    VisionTransformer(SIGLIP).model.save_pretrained(tmp_path)
    inner = {"_target_": "embodied.lvlm.encoders.vision.VisionTransformer", "checkpoint": str(tmp_path)}
    node = {"_target_": "embodied.lvlm.encoders.video.FrameEncoder", "pool": "mean", "encoder": inner}
    encoder = build(node).eval()
    again = build(encoder.resolved(node)).eval()
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again.encode(frames_of()), encoder.encode(frames_of()))


@pytest.mark.parametrize(
    "wrong, says",
    [
        (lambda: by_frame(pool="max"), "pool is one of none, mean"),
        (lambda: by_frame(times=3), "no use for times=3"),
        (lambda: by_frame(pool="mean", grid=[2, 2]), "no use for"),
        (lambda: SpaceTimeTransformer(VIDEOMAE).encode(frames_of((1, 6, 3, 32, 32))), "reads 4 frames, got 6"),
        (lambda: SpaceTimeTransformer(VIT), "model_type 'None' is none of timesformer, videomae"),
        (lambda: SpaceTimeTransformer(TIMESFORMER | {"frames": 3}), "no setting 'frames'; did you mean 'num_frames'"),
    ],
)
def test_a_mistake_is_one_line(wrong, says):
    with pytest.raises(ValueError, match=says):
        wrong()
