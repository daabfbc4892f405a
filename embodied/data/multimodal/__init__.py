"""Multi-modal datasets: whatever the format, conversations with pictures come out, `Sample`s.

from embodied.data.multimodal import Sample, load_frames, load_image
"""

from embodied.data.multimodal.media import Frames, frame_indices, load_frames, load_image
from embodied.data.multimodal.sample import BrokenSample, Sample, image, message, video

__all__ = [
    "BrokenSample",
    "Frames",
    "Sample",
    "frame_indices",
    "image",
    "load_frames",
    "load_image",
    "message",
    "video",
]
