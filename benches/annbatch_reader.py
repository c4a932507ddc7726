"""annbatch on its own pre-shuffled store (no cache is warmed): a local path, or a store on an HTTP server.

usage: annbatch_reader.py PATH|http://HOST/BUCKET/KEY [--chunk 512] [--preload 32] [--batch 4096] [--secs 20] [--runs 3]
Runs in the peers' environment (../shared/peers/peer annbatch); a store on a server is read by obstore.
"""
import argparse, os, sys, urllib.parse, warnings

warnings.filterwarnings("ignore")
parser = argparse.ArgumentParser()
parser.add_argument("store")
parser.add_argument("--chunk", type=int, default=512)
parser.add_argument("--preload", type=int, default=32)
parser.add_argument("--batch", type=int, default=4096)
parser.add_argument("--secs", type=float, default=20)
parser.add_argument("--runs", type=int, default=3)
parser.add_argument("--name", default="annbatch")
o = parser.parse_args()

sys.path.insert(0, os.environ["PEERS"] + "/data")
import anndata as ad
import numpy as np
import zarr
from annbatch import Loader
from common import measure

if o.store.startswith("http"):
    from obstore.store import S3Store
    url = urllib.parse.urlsplit(o.store)
    bucket, key = url.path.strip("/").split("/", 1)
    remote = S3Store(bucket, prefix=key, endpoint=f"{url.scheme}://{url.netloc}", region="us-east-1", skip_signature=True,
                     virtual_hosted_style_request=False, client_options={"allow_http": True})
    store = zarr.storage.ObjectStore(remote, read_only=True)
else:
    # What its documentation recommends for local stores.
    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    store = zarr.storage.LocalStore(o.store, read_only=True)


def datasets():
    """Groups dataset_0, dataset_1, ... of the collection: a plain HTTP server has no listing."""
    found = []
    while True:
        try:
            group = zarr.open_group(store, path=f"dataset_{len(found)}", mode="r", use_consolidated=False)
        except FileNotFoundError:
            return found
        found.append(ad.AnnData(X=ad.io.sparse_dataset(group["X"]), obs=ad.io.read_elem(group["obs"])[["plate"]]))


opened = datasets()


def loader(run):
    with ad.settings.override(remove_unused_categories=False):
        loader = Loader(batch_size=o.batch, chunk_size=o.chunk, preload_nchunks=o.preload, shuffle=True, to=None,
                        preload_to_gpu=False, rng=np.random.default_rng(run))
        return loader.add_adatas(opened)


def taken(batch):
    return batch["X"].shape[0], batch["obs"]["plate"].cat.codes.to_numpy()


measure(o.name, loader, taken, o.batch, mode="sparse", secs=o.secs, runs=o.runs)
