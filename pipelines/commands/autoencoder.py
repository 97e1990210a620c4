"""train autoencoder: the frozen models that a small cascade stands on."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg

from curation.corpus import layout
from curation.errors import CorpusError, TornPart, TrainingDataError, UsageError, typed
from pipelines.places import check_new, store_at
from pipelines.progress import ProgressBars
from training.autoencoder import AutoencoderConfig

if TYPE_CHECKING:
    from training.autoencoder import Fidelity
    from training.models.patch_autoencoder import PatchAutoencoder
    from training.models.text_encoder import TextEncoder

NAME = "autoencoder"
REPORT = "fidelity.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainAutoencoder:
    """Train a small image autoencoder on exported clips, and put a text encoder beside it.

    What it leaves is a folder for --companions of `lavie encode` and `lavie train`. The text encoder is
    the sentence encoder of `lavie weights fetch embedded`, which is not trained.
    """

    network: Positional[Literal["autoencoder"]] = "autoencoder"
    """What is trained."""
    corpus: str
    """Folder or prefix of a corpus that `lavie export` has packed."""
    out: Path
    """New folder for vae/, text_encoder/, tokenizer/ and the figures."""
    config: Annotated[AutoencoderConfig, arg(name="")] = field(default_factory=AutoencoderConfig)
    """Settings of the run."""

    def run(self) -> int:
        """Train, measure on held-out clips, and write the folder, whole or not at all."""
        from training.autoencoder import fidelity, train_decoder, with_components
        from training.data.films import read_films
        from training.models.sentence_encoder import fetched_sentence_encoder
        from training.models.text_encoder import TextEncoder

        with typed("--selection"):
            layout.check_selection_name(self.config.frames.selection)
        store, console = store_at(self.corpus, "--corpus"), Console()
        check_new(self.out, "--out")
        text_encoder = TextEncoder(*fetched_sentence_encoder())
        try:
            films = read_films(store, self.config.frames, seed=self.config.seed)
        except TornPart:
            raise
        except TrainingDataError as error:
            raise UsageError(f"--corpus, --frames: {error}") from error
        except CorpusError as error:
            raise UsageError(f"--corpus: {error}") from error
        counts = (
            f"{len(films.train_NCHW):,} frames to learn from, {len(films.held_out_NCHW):,} held out"
        )
        console.print(counts, highlight=False)
        vae = with_components(self.config, films.train_NCHW)
        with ProgressBars(console, unit="steps") as bars:
            bars.start(NAME, total=self.config.steps, done=0)
            train_decoder(
                vae, films.train_NCHW, self.config, lambda _step, _psnr: bars.advance(NAME, {})
            )
        measured = fidelity(vae, films.held_out_NCHW, self.config.seed)
        console.print(fidelity_table(measured))
        self._write(vae, text_encoder, measured)
        console.print(f"companions: {self.out}", highlight=False, soft_wrap=True)
        return 0

    def _write(self, vae: PatchAutoencoder, text_encoder: TextEncoder, measured: Fidelity) -> None:
        draft = self.out.with_name(f".writing-{self.out.name}-{uuid.uuid4().hex}")
        try:
            vae.save_pretrained(draft / "vae")
            text_encoder.save(draft)
            report = {"psnr_db": asdict(measured), "settings": asdict(self.config)}
            text = json.dumps(report, indent=1, sort_keys=True) + "\n"
            (draft / REPORT).write_text(text, encoding="utf-8")
            os.rename(draft, self.out)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def fidelity_table(measured: Fidelity) -> Table:
    """How well held-out frames come back."""
    table = Table(title="held-out frames, there and back")
    table.add_column("by")
    table.add_column("PSNR, dB", justify="right")
    table.add_row("plain principal components", f"{measured.plain:.2f}")
    table.add_row("the decoder", f"{measured.decoded:.2f}")
    table.add_row("the decoder, latents with noise", f"{measured.decoded_with_noise:.2f}")
    return table
