//! HDF5 files in a build without the feature `hdf5`: they are recognised and refused in one line.

use super::container::Kind;

pub const KIND: Kind = Kind {
    recognises: |candidate| candidate.is_hdf5(),
    open: |candidate| {
        Err(candidate.fail(
            "an HDF5 file, and this build reads zarr only: use a build with the feature `hdf5` (the default), or write the \
             store as zarr (`anndata.read_h5ad(file).write_zarr(...)`)",
        ))
    },
    needs_trial: false,
};
