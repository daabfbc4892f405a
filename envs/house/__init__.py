"""Procedural houses: made from a seed, seen by a ray caster without a graphics library, walked with exact geodesics.

The world frame is right-handed with z up, in metres; the floor is z = 0. A heading is an angle about z, counter-
clockwise, and heading 0 looks along +x. Habitat's frame (y up, forward -z) is (x, z, -y) of this one.
"""
