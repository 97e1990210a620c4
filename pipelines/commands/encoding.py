"""encode."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import Positional, arg

from curation.corpus import layout
from curation.corpus.removal import read_removed
from curation.corpus.shards import read_manifest
from curation.errors import CorpusError, TornPart, UsageError, typed
from curation.stations.station import Resources
from pipelines.locking import locked
from pipelines.places import store_at
from training.data.encode_config import EncodeConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Encode:
    """Compute latents and text states of exported clips once, to train on without pixels and words."""

    corpus: Positional[str]
    """Folder or prefix of a corpus that `lavie export` has packed."""
    companions: Path
    """Folder with vae/, text_encoder/ and tokenizer/ of the stage that will be trained."""
    selection: str = "default"
    """Name of the exported selection."""
    allow_stopgap_captions: bool = False
    """Encode captions made of tags too ("A video of a diaper and a pinwheel", `caption_engine` tags);
    left out, a selection that holds some is refused."""
    config: Annotated[EncodeConfig, arg(name="")] = field(default_factory=EncodeConfig)
    """What is encoded of each clip."""
    gpus: float = 1.0
    """Share of a GPU that one worker takes, at least 0, where the cluster has any."""
    ray_address: str = "local"
    """'local' starts a private Ray on this machine; 'auto' or an address joins a cluster."""

    def run(self) -> int:
        """Encode what is not encoded yet and print the layer's digest."""
        if self.gpus < 0:
            raise UsageError(f"--gpus: it must be at least 0, got {self.gpus}")
        with typed("--selection"):
            layout.check_selection_name(self.selection)
        from pipelines import encode

        console, store = Console(), store_at(self.corpus, "CORPUS")
        try:
            read_manifest(store, self.selection)  # the lock makes a folder, of a mistyped name too
        except TornPart:
            raise
        except CorpusError as error:
            raise UsageError(f"CORPUS, --selection: {error}") from error
        with locked(store) as store:
            read_removed(store).check_finished()
            digest, manifest = encode.encode(
                store,
                self.selection,
                self.config,
                encode.HowToEncode(
                    companions=self.companions,
                    resources=Resources(gpus=self.gpus),
                    allow_stopgap_captions=self.allow_stopgap_captions,
                    ray_address=self.ray_address,
                ),
                console=console,
            )
        console.print(f"{manifest['num_clips']:,} clips encoded", highlight=False)
        for reason, number in manifest["left_out"].items():
            console.print(f"  left out, {reason}: {number:,}", highlight=False)
        console.print(f"digest: {digest}", highlight=False)
        return 0
