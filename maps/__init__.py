"""The memory half of the input space: topological, bird's-eye-view and voxel maps."""
