"""habitat-sim behind the interface of the house simulator, and the scene and episode files of habitat-lab.

habitat-sim is on conda only. `engine` is one file that runs in that interpreter; `simulator` is this side of it, in the
same process or in another. Readers of files need neither.

The world frame is that of `envs.house`: z up, heading 0 along +x, counter-clockwise. Files and habitat-sim have y up
and look along -z: a point (x, y, z) of theirs is (x, -z, y) here.
"""
