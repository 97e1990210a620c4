"""The page, built with Gradio, and its server.

The server listens on this machine only, answers only to this machine's own names (so that no web page
elsewhere can reach it through a name of its own), keeps no history and calls nobody; the page loads
nothing from elsewhere.
"""

from __future__ import annotations

import html
import random
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from curation.errors import LavieError
from inference.evaluate.videos import Seen, UnusableVideo, read_frames
from pipelines.studio.samples import (
    MAX_SEED,
    EarlierSample,
    Request,
    Sampler,
    Stopped,
    earlier_samples,
)

ADDRESS = "127.0.0.1"
HOSTS = [ADDRESS, "localhost"]
POSTER_PX = 320
Shown = tuple[str | None, Mapping[str, Any] | None, Any]


class Studio:
    """What the buttons of the page do.

    Args:
        sampler: The cascade.
        folder: Where samples are written and found again.
    """

    def __init__(self, sampler: Sampler, folder: Path) -> None:
        self.sampler = sampler
        self.folder = folder.resolve()
        self._posters = tempfile.TemporaryDirectory(prefix="lavie-posters-")
        self._stop = threading.Event()

    def earlier(self) -> list[EarlierSample]:
        """Earlier samples, the newest first."""
        return earlier_samples(self.folder)

    @property
    def posters(self) -> Path:
        """Folder of the pictures that stand for earlier samples; gone with this object."""
        return Path(self._posters.name).resolve()

    def gallery(self) -> list[tuple[str, str]]:
        """A picture and a caption of each earlier sample that can be read."""
        samples = [(self._poster(sample.path), sample.caption) for sample in self.earlier()]
        return [(str(poster), caption) for poster, caption in samples if poster is not None]

    def _poster(self, video: Path) -> Path | None:
        """The first frame of a video as a small picture, made once a version of the file."""
        try:
            poster = self.posters / f"{video.stat().st_mtime_ns}" / f"{video.name}.jpg"
            if not poster.is_file():
                frame_HWC = read_frames(video, Seen(), name=video.name, count=1)[0]
                picture = Image.fromarray(frame_HWC)
                picture.thumbnail((POSTER_PX, POSTER_PX))
                poster.parent.mkdir(exist_ok=True)
                picture.save(poster)
        except (UnusableVideo, FileNotFoundError):  # removed meanwhile
            return None
        return poster

    def sample(  # noqa: PLR0913 - one argument for each field of the page
        self,
        prompt: str,
        negative_prompt: str,
        later_stages: list[str],
        seed: float,
        num_steps: float,
        guidance_scale: float,
        loras: list[str],
        lora_weight: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio recognises it
    ) -> Shown:
        """Sample one video and show it."""
        self._stop.clear()

        def step(stage: str, done: int, total: int) -> None:
            if self._stop.is_set():
                raise Stopped
            progress((done, total), desc=stage)

        try:
            request = Request(
                prompt=prompt,
                negative_prompt=negative_prompt,
                stages=tuple(s for s in self.sampler.stages if s == "base" or s in later_stages),
                seed=int(seed),
                num_steps=int(num_steps),
                guidance_scale=float(guidance_scale),
                loras={name: float(lora_weight) for name in sorted(loras)},
            )
            path = self.folder / request.file_name
            self.sampler.sample(request, path, step)
        except Stopped:
            raise gr.Error("stopped; nothing was written", title="Stopped") from None
        except (LavieError, ValueError, TypeError) as error:  # an emptied field is None
            # Gradio shows messages as HTML, and this one may repeat the prompt.
            raise gr.Error(html.escape(str(error)), print_exception=False) from error
        shown = next((s for s in self.earlier() if s.path == path), None)
        return str(path), shown.description if shown else None, self.gallery()

    def stop(self) -> None:
        """End the sample that is being made after its next step."""
        self._stop.set()

    def show(self, event: gr.SelectData) -> tuple[str, Mapping[str, Any]]:
        """Video and description of a sample that was chosen in the gallery."""
        name = Path(event.value["image"]["path"]).stem
        for sample in self.earlier():
            if sample.path.name == name:
                return str(sample.path), sample.description
        raise gr.Error(html.escape(f"{name} is no longer in {self.folder}"))


def build_page(studio: Studio) -> gr.Blocks:
    """The page: settings to the left, the video to the right, earlier samples below."""
    sampler = studio.sampler
    with gr.Blocks(title="LaVie studio", analytics_enabled=False) as page:
        gr.HTML(f"<h1>LaVie studio</h1><p>{html.escape(sampler.label)}</p>")
        with gr.Row():
            with gr.Column(scale=2):
                fields = _fields(sampler)
                with gr.Row():
                    go = gr.Button("Sample", variant="primary")
                    stop = gr.Button("Stop")
            with gr.Column(scale=3):
                video = gr.Video(
                    label="Video", interactive=False, autoplay=True, loop=True, buttons=["download"]
                )
                made = gr.JSON(label="How it was made")
        gallery = gr.Gallery(
            label="Earlier samples",
            value=studio.gallery,
            columns=6,
            fit_columns=False,
            height="max-content",
            allow_preview=False,
            interactive=False,
            buttons=[],
        )
        shown = [video, made]
        common: dict[str, Any] = {"api_visibility": "private"}
        go.click(
            studio.sample,
            fields,
            [*shown, gallery],
            concurrency_limit=1,
            show_progress_on=video,
            **common,
        )
        stop.click(studio.stop, queue=False, **common)
        gallery.select(studio.show, None, shown, **common)
    return page


def _fields(sampler: Sampler) -> list[Any]:
    """The settings, in the order of `Studio.sample`'s arguments."""
    prompt = gr.Textbox(label="Prompt", lines=3, autofocus=True)
    negative = gr.Textbox(label="Negative prompt", lines=1)
    later = [(gives, stage) for stage, gives in sampler.stages.items() if stage != "base"]
    stages = gr.CheckboxGroup(later, label="Stages after the base", visible=bool(later))
    with gr.Row():
        seed = gr.Number(label="Seed", value=0, precision=0, minimum=0, maximum=MAX_SEED)
        another = gr.Button("Another seed")
        another.click(
            lambda: random.randint(0, MAX_SEED),  # noqa: S311 - no secret
            outputs=seed,
            queue=False,
            api_visibility="private",
        )
    with gr.Row():
        steps = gr.Slider(1, 100, value=50, step=1, label="Steps of each stage")
        guidance = gr.Slider(1, 15, value=7.5, step=0.5, label="Guidance")
    with gr.Row(visible=bool(sampler.loras)):
        loras = gr.Dropdown(list(sampler.loras), label="LoRA", multiselect=True, value=[])
        weight = gr.Slider(-1, 2, value=1, step=0.05, label="LoRA weight")
    return [prompt, negative, stages, seed, steps, guidance, loras, weight]


def serve(studio: Studio, *, port: int | None = None) -> tuple[gr.Blocks, str]:
    """Start the server in threads of this process.

    Args:
        studio: What the page does.
        port: Where to listen on 127.0.0.1; by default the first free one from 7860 on.

    Returns:
        The page (its `close` ends the server) and its address.

    Raises:
        OSError: The port is taken.
    """
    studio.folder.mkdir(parents=True, exist_ok=True)
    # Served from where they lie; otherwise Gradio copies every video into a cache of its own.
    gr.set_static_paths([studio.folder, studio.posters])
    page = build_page(studio).queue(max_size=16)
    _, url, _ = page.launch(
        server_name=ADDRESS,
        server_port=port,
        share=False,
        inbrowser=False,
        prevent_thread_lock=True,
        quiet=True,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        theme=gr.themes.Base(font="system-ui", font_mono="monospace"),
        app_kwargs={"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)]},
    )
    return page, url
