"""The compiled ray caster. A house is a 2.5-D world: all parts are upright, so a level camera's column of pixels is one
ray in the plan. Walls are met once per column; every other part covers at most three runs of rows there (its front, top
or bottom), whose depth is a constant or a constant over the row's slope. Pixels are coloured once, at the end.

A pitched camera has no such columns: each part is intersected with the rays of the rectangle it covers in the image.

What every renderer here means: a pixel shows the nearest surface that its centre's ray enters at a depth of at least
`NEAR`; depth is along the optical axis; a part that holds the camera shows no front.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.house.compiling import njit

NEAR = 0.01
FLOOR, CEILING = -1, -2
LIGHT = (0.80, 0.88, 0.72, 0.78, 0.55, 1.0)
"""Brightness of faces towards -x, +x, -y, +y, down and up; 6 is a cylinder's side, in between by its normal."""

_near = np.float32(NEAR)
_options: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "fastmath": {"nsz", "arcp", "contract", "afn", "reassoc"},
    "error_model": "numpy",
}


@njit(**_options)
def noise(i, j):
    """A repeatable number in 0..1 for a cell of a pattern."""
    n = (i * 1619 + j * 6971) & 0x7FFF
    return np.float32(((n * ((n * 15731) & 0x7FFF)) >> 7) & 0xFF) * np.float32(1 / 255)


@njit(inline="always", **_options)
def blend(pattern, s, t):
    """How much of the second colour a pattern has at (s, t), in its own periods."""
    if pattern == 0:
        return np.float32(0)
    fs, ft = np.floor(s), np.floor(t)
    i, j = np.int32(fs), np.int32(ft)
    if pattern == 1:
        return np.float32((i + j) & 1)
    if pattern == 2:
        if t - ft < np.float32(0.06):
            return np.float32(1.6)
        return noise(j, np.int32(np.floor(s * np.float32(0.16) + np.float32(j) * np.float32(0.37))))
    if pattern == 3:
        return np.float32(i & 1)
    if pattern == 4:
        t2 = t * np.float32(2)
        row = np.floor(t2)
        b = s + np.float32(0.5) * np.float32(np.int32(row) & 1)
        if t2 - row < np.float32(0.14) or b - np.floor(b) < np.float32(0.07):
            return np.float32(1)
        return noise(np.int32(np.floor(b)), np.int32(row)) * np.float32(0.4)
    if pattern == 5:
        return noise(i, j)
    if pattern == 6:
        if s - fs < np.float32(0.05) or t - ft < np.float32(0.05):
            return np.float32(1)
        return noise(i, j) * np.float32(0.3)
    ds, dt = s - fs - np.float32(0.5), t - ft - np.float32(0.5)
    return np.float32(1) if ds * ds + dt * dt < np.float32(0.08) else np.float32(0)


@njit(inline="always", **_options)
def shade(code, x, y, z, depth, parts, bounds, colours, pattern, scale, rooms, top, n_rooms):
    """The surface's row and the colour at a point, from a code of part and face."""
    f = np.float32
    if code < 0:
        i, j = int(x * f(10)), int(y * f(10))
        i, j = min(max(i, 0), rooms.shape[0] - 1), min(max(j, 0), rooms.shape[1] - 1)
        room = rooms[i, j]
        if room < 0:
            room = 0
        surface = parts + room + (0 if code == -1 else n_rooms)
        light = f(0.94) if code == -1 else f(0.97)
        mix = blend(pattern[surface], x / scale[surface], y / scale[surface])
    else:
        surface, face = code >> 3, code & 7
        a, b, c = x - bounds[surface, 0], y - bounds[surface, 1], z - bounds[surface, 2]
        ground = f(0.84) + f(0.16) * min(f(1), z * f(2.5))
        ground *= f(0.9) + f(0.1) * min(f(1), (top - z) * f(4))
        if face < 2:
            s, t = b, c
            light = (f(0.80) if face == 0 else f(0.88)) * ground
        elif face < 4:
            s, t = a, c
            light = (f(0.72) if face == 2 else f(0.78)) * ground
        elif face < 6:
            s, t = a, b
            light = f(0.55) if face == 4 else f(1.0)
        else:
            radius = f(0.5) * (bounds[surface, 3] - bounds[surface, 0])
            nx, ny = (a - radius) / radius, (b - radius) / radius
            light = ground * (f(0.79) + f(0.09) * nx * abs(nx) + f(0.06) * ny * abs(ny))
            s, t = a + b, c
        mix = blend(pattern[surface], s / scale[surface], t / scale[surface])
    light *= f(1) - min(f(0.35), f(0.025) * depth)
    return surface, mix, light


@njit(inline="always", **_options)
def paint(rgb, colours, surface, mix, light):
    for k in range(3):
        value = (colours[surface, k] + mix * (colours[surface, k + 3] - colours[surface, k])) * light
        rgb[k] = np.uint8(min(np.float32(255), max(np.float32(0), value + np.float32(0.5))))


@njit(**_options)
def enter(dx, dy, ox, oy, bounds, k, is_round):
    """Where a ray of the plan enters and leaves a part, and by which face; leaves before it enters where it misses.

    Box bounds are relative to nothing: `ox`, `oy` is the camera.
    """
    f = np.float32
    if is_round:
        radius = f(0.5) * (bounds[k, 3] - bounds[k, 0])
        px, py = ox - f(0.5) * (bounds[k, 0] + bounds[k, 3]), oy - f(0.5) * (bounds[k, 1] + bounds[k, 4])
        a, b, c = dx * dx + dy * dy, dx * px + dy * py, px * px + py * py - radius * radius
        inside = b * b - a * c
        if inside <= f(0):
            return f(1), f(0), 6
        root = np.sqrt(inside)
        return (-b - root) / a, (-b + root) / a, 6
    ix = f(1) / (dx if abs(dx) > f(1e-7) else f(1e-7))
    iy = f(1) / (dy if abs(dy) > f(1e-7) else f(1e-7))
    a, b = (bounds[k, 0] - ox) * ix, (bounds[k, 3] - ox) * ix
    c, d = (bounds[k, 1] - oy) * iy, (bounds[k, 4] - oy) * iy
    x_in, x_out = min(a, b), max(a, b)
    y_in, y_out = min(c, d), max(c, d)
    if x_in > y_in:
        return x_in, min(x_out, y_out), (0 if dx > 0 else 1)
    return y_in, min(x_out, y_out), (2 if dy > 0 else 3)


@njit(**_options)
def columns_of(bounds, n, ox, oy, fx, fy, focal, width, first, last, least):
    """The columns each part may cover (first > last: none), and its least depth, for a level camera."""
    f = np.float32
    half = f(0.5) * f(width)
    for k in range(n):
        near, far, low, high = f(1e9), f(-1e9), f(1e9), f(-1e9)
        for corner in range(4):
            x = (bounds[k, 0] if corner & 1 else bounds[k, 3]) - ox
            y = (bounds[k, 1] if corner & 2 else bounds[k, 4]) - oy
            ahead, right = x * fx + y * fy, x * fy - y * fx
            near, far = min(near, ahead), max(far, ahead)
            if ahead >= _near:
                low, high = min(low, right / ahead), max(high, right / ahead)
                continue
            for other in (corner ^ 1, corner ^ 2):  # where the sides from here reach the near plane
                x = (bounds[k, 0] if other & 1 else bounds[k, 3]) - ox
                y = (bounds[k, 1] if other & 2 else bounds[k, 4]) - oy
                there = x * fx + y * fy
                if there >= _near:
                    share = (_near - ahead) / (there - ahead)
                    u = (right + share * (x * fy - y * fx - right)) / _near
                    low, high = min(low, u), max(high, u)
        first[k], last[k], least[k] = 0, -1, near
        if far < _near:
            continue
        start = np.ceil(max(f(-1), low * focal + half - f(0.5) - f(0.01)))
        end = np.floor(min(f(width), high * focal + half - f(0.5) + f(0.01)))
        first[k], last[k] = max(0, int(start)), min(width - 1, int(end))


@njit(**_options)
def level(camera, bounds, is_round, walls, height, focal, depth, code, wall, first, last, least):
    """Fill depth and code, each (W, H), for a camera without pitch."""
    f = np.float32
    ox, oy, oz = camera[0], camera[1], camera[2]
    fx, fy = f(np.cos(camera[3])), f(np.sin(camera[3]))
    width, rows = depth.shape
    n = bounds.shape[0]
    columns_of(bounds, n, ox, oy, fx, fy, focal, width, first, last, least)
    half, middle = f(0.5) * f(width) - f(0.5), f(0.5) * f(rows) - f(0.5)
    inverse = f(1) / focal
    for c in range(width):
        wall[c] = f(1e4)
    wall_code = last[n:]  # the tail of a work array
    for c in range(width):
        wall_code[c] = -1
    for k in range(walls):
        for c in range(first[k], last[k] + 1):
            u = (f(c) - half) * inverse
            t0, t1, face = enter(fx + u * fy, fy - u * fx, ox, oy, bounds, k, False)
            if t0 <= t1 and t0 >= _near and t0 < wall[c]:
                wall[c] = t0
                wall_code[c] = k * 8 + face
    for c in range(width):
        t = wall[c]
        for r in range(rows):
            v = (middle - f(r)) * inverse
            v = v if abs(v) > f(1e-6) else f(-1e-6)
            plane = ((height if v > 0 else f(0)) - oz) / v
            if t < plane:
                depth[c, r], code[c, r] = t, wall_code[c]
            else:
                depth[c, r], code[c, r] = plane, (-2 if v > 0 else -1)
    for k in range(walls, n):
        z0, z1 = bounds[k, 2] - oz, bounds[k, 5] - oz
        for c in range(first[k], last[k] + 1):
            if least[k] >= wall[c]:
                continue
            u = (f(c) - half) * inverse
            t0, t1, face = enter(fx + u * fy, fy - u * fx, ox, oy, bounds, k, is_round[k] == 1)
            if t0 > t1 or t1 < _near or t0 >= wall[c]:
                continue
            here_depth, here_code = depth[c], code[c]
            begin = max(t0, _near)
            if t0 >= _near:
                scale = focal / t0
                start = max(0, int(np.ceil(max(f(-1), middle - z1 * scale))))
                stop = int(np.floor(min(f(rows - 1), middle - z0 * scale))) + 1
                value = k * 8 + face
                for r in range(start, stop):
                    if t0 < here_depth[r]:
                        here_depth[r] = t0
                        here_code[r] = value
            if z1 < 0:
                start = max(0, int(np.ceil(max(f(-1), middle - z1 * focal / t1))))
                stop = int(np.floor(min(f(rows - 1), middle - z1 * focal / begin))) + 1
                for r in range(start, stop):
                    t = z1 * focal / (middle - f(r))
                    if t < here_depth[r]:
                        here_depth[r] = t
                        here_code[r] = k * 8 + 5
            elif z0 > 0:
                start = max(0, int(np.ceil(max(f(-1), middle - z0 * focal / begin))))
                stop = int(np.floor(min(f(rows - 1), middle - z0 * focal / t1))) + 1
                for r in range(start, stop):
                    t = z0 * focal / (middle - f(r))
                    if t < here_depth[r]:
                        here_depth[r] = t
                        here_code[r] = k * 8 + 4


@njit(**_options)
def pitched(camera, bounds, is_round, height, focal, depth, code):
    """Fill depth and code, each (W, H), for any pitch."""
    f = np.float32
    ox, oy, oz = camera[0], camera[1], camera[2]
    fx, fy = f(np.cos(camera[3])), f(np.sin(camera[3]))
    cp, sp = f(np.cos(camera[4])), f(np.sin(camera[4]))
    width, rows = depth.shape
    half, middle = f(0.5) * f(width) - f(0.5), f(0.5) * f(rows) - f(0.5)
    inverse = f(1) / focal
    for c in range(width):
        for r in range(rows):
            up = sp + (middle - f(r)) * inverse * cp
            up = up if abs(up) > f(1e-6) else f(-1e-6)
            depth[c, r] = ((height if up > 0 else f(0)) - oz) / up
            code[c, r] = -2 if up > 0 else -1
    points = np.empty((8, 3), np.float32)
    for k in range(bounds.shape[0]):
        nearest, farthest = f(1e9), f(-1e9)
        for i in range(8):
            x = (bounds[k, 0] if i & 1 else bounds[k, 3]) - ox
            y = (bounds[k, 1] if i & 2 else bounds[k, 4]) - oy
            z = (bounds[k, 2] if i & 4 else bounds[k, 5]) - oz
            along = x * fx + y * fy
            points[i, 0], points[i, 1], points[i, 2] = along * cp + z * sp, x * fy - y * fx, z * cp - along * sp
            nearest, farthest = min(nearest, points[i, 0]), max(farthest, points[i, 0])
        if farthest < _near:
            continue
        u0, u1, v0, v1 = f(1e9), f(-1e9), f(1e9), f(-1e9)
        for i in range(8):
            if points[i, 0] >= _near:
                u, v = points[i, 1] / points[i, 0], points[i, 2] / points[i, 0]
                u0, u1, v0, v1 = min(u0, u), max(u1, u), min(v0, v), max(v1, v)
            else:
                for bit in (1, 2, 4):
                    j = i ^ bit
                    if points[j, 0] >= _near:
                        q = (_near - points[i, 0]) / (points[j, 0] - points[i, 0])
                        u = (points[i, 1] + q * (points[j, 1] - points[i, 1])) / _near
                        v = (points[i, 2] + q * (points[j, 2] - points[i, 2])) / _near
                        u0, u1, v0, v1 = min(u0, u), max(u1, u), min(v0, v), max(v1, v)
        c0 = max(0, int(np.ceil(max(f(-1), half + u0 * focal - f(0.01)))))
        c1 = int(np.floor(min(f(width - 1), half + u1 * focal + f(0.01))))
        r0 = max(0, int(np.ceil(max(f(-1), middle - v1 * focal - f(0.01)))))
        r1 = int(np.floor(min(f(rows - 1), middle - v0 * focal + f(0.01))))
        z0, z1 = bounds[k, 2] - oz, bounds[k, 5] - oz
        for c in range(c0, c1 + 1):
            u = (f(c) - half) * inverse
            for r in range(r0, r1 + 1):
                if nearest >= depth[c, r]:
                    continue
                v = (middle - f(r)) * inverse
                ahead, up = cp - v * sp, sp + v * cp
                t0, t1, face = enter(ahead * fx + u * fy, ahead * fy - u * fx, ox, oy, bounds, k, is_round[k] == 1)
                iz = f(1) / (up if abs(up) > f(1e-7) else f(1e-7))
                a, b = z0 * iz, z1 * iz
                if min(a, b) > t0:
                    t0 = min(a, b)
                    face = 4 if up > 0 else 5
                t1 = min(t1, max(a, b))
                if t0 <= t1 and t0 >= _near and t0 < depth[c, r]:
                    depth[c, r] = t0
                    code[c, r] = k * 8 + face


@njit(**_options)
def cast(
    cameras, bounds, is_round, walls, colours, pattern, scale, semantic, instance, rooms, n_rooms, height, focal,
    rgb, depth_out, semantic_out, instance_out, want_rgb, want_ids,
):  # fmt: skip
    """Render B cameras (x, y, z, heading, pitch) into arrays of shape (B, H, W, ...)."""
    f = np.float32
    count, rows, width = depth_out.shape
    n = bounds.shape[0]
    depth = np.empty((width, rows), np.float32)
    code = np.empty((width, rows), np.int32)
    wall = np.empty(width, np.float32)
    first, last = np.empty(n, np.int32), np.empty(n + width, np.int32)
    least = np.empty(n, np.float32)
    half, middle = f(0.5) * f(width) - f(0.5), f(0.5) * f(rows) - f(0.5)
    inverse = f(1) / focal
    for b in range(count):
        camera = cameras[b]
        if abs(camera[4]) < f(1e-6):
            level(camera, bounds, is_round, walls, height, focal, depth, code, wall, first, last, least)
        else:
            pitched(camera, bounds, is_round, height, focal, depth, code)
        fx, fy = f(np.cos(camera[3])), f(np.sin(camera[3]))
        cp, sp = f(np.cos(camera[4])), f(np.sin(camera[4]))
        for r in range(rows):
            v = (middle - f(r)) * inverse
            ahead, up = cp - v * sp, sp + v * cp
            for c in range(width):
                t = depth[c, r]
                depth_out[b, r, c] = t
                if not (want_rgb or want_ids):
                    continue
                u = (f(c) - half) * inverse
                x, y = camera[0] + t * (ahead * fx + u * fy), camera[1] + t * (ahead * fy - u * fx)
                surface, mix, light = shade(
                    code[c, r], x, y, camera[2] + t * up, t, n, bounds, colours, pattern, scale, rooms, height, n_rooms
                )
                if want_rgb:
                    paint(rgb[b, r, c], colours, surface, mix, light)
                if want_ids:
                    semantic_out[b, r, c] = semantic[surface]
                    instance_out[b, r, c] = instance[surface]
