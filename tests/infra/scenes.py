"""What a camera might see: textured ground, two things that move over it, and a sensor's noise."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def scene(frames: int, size: int = 224, *, noise: float = 2.0, seed: int = 0) -> npt.NDArray[np.uint8]:
    """uint8[frames, size, size, 3]; `noise` is a standard deviation."""
    chance = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size]
    waves = 40 * np.sin(x / 5) + 40 * np.cos(y / 7) + 20 * np.sin((x + y) / 3)
    ground = waves[..., None] * np.array([1.0, 0.8, 0.6]) + np.array([120.0, 110.0, 130.0])
    found = []
    for number in range(frames):
        image = ground.copy()
        at = (60 + 1.3 * number) % size, (80 + 0.7 * number) % size
        image[(x - at[0]) ** 2 + (y - at[1]) ** 2 < (size / 7) ** 2] = [200, 60, 40]
        image[(abs(x - size + at[0]) < size / 11) & (abs(y - at[1]) < size / 9)] = [30, 90, 200]
        image = np.roll(image, 2 * number, 1) + chance.normal(0, noise, image.shape)
        found.append(np.clip(image, 0, 255).astype(np.uint8))
    return np.stack(found)


def depth(frames: int, height: int = 48, width: int = 64, *, seed: int = 0) -> npt.NDArray[np.uint16]:
    """uint16[frames, height, width]: all values that there are."""
    return np.random.default_rng(seed).integers(0, 2**16, (frames, height, width)).astype(np.uint16)


def psnr(seen: npt.NDArray[np.uint8], kept: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Of each frame, in dB: 10 log10(255² / mean squared error)."""
    error = ((seen.astype(np.float64) - kept.astype(np.float64)) ** 2).mean(axis=(1, 2, 3))
    found: npt.NDArray[np.float64] = 10 * np.log10(255**2 / np.maximum(error, 1e-9))
    return found
