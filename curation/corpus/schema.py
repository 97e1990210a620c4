"""Every column of a corpus: its name, type, unit and meaning, by the layer that adds it.

A column is added by one layer and may be null only where its doc says when. The docs travel inside
the Parquet files as field metadata, and `docs/corpus.md` is generated from this file.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 2


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Args:
        name: snake case, unit as suffix where there is one.
        type: the Arrow type.
        doc: what the number or text says, and when it is null.
        unit: "s", "bytes", "0..1", ...; empty for texts and plain counts.
    """

    name: str
    type: pa.DataType
    doc: str
    unit: str = ""

    @property
    def field(self) -> pa.Field:
        """The Arrow field, with unit and doc as metadata."""
        metadata = {"doc": self.doc} | ({"unit": self.unit} if self.unit else {})
        return pa.field(self.name, self.type, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Layer:
    """What one station adds.

    Args:
        about: one sentence for docs/corpus.md.
        columns: in the order of the file.
    """

    about: str
    columns: tuple[Column, ...]


F32, I32, I64, STR, BOOL = pa.float32(), pa.int32(), pa.int64(), pa.string(), pa.bool_()
STRINGS = pa.list_(pa.string())

SOURCES = (
    Column(
        "uri",
        STR,
        "absolute path, s3://, gs://, hf:// or http(s):// URI; file:// for names that are not UTF-8",
    ),
    Column("media", STR, "'video' or 'image', by the file name; the decoder goes by content"),
    Column(
        "size_bytes",
        I64,
        "size when listed; null for objects that a list names, and for what is no regular file",
        "bytes",
    ),
    Column("title", STR, "title given in the source list; null where none was"),
    Column("description", STR, "description given in the source list; null where none was"),
    Column("given_category", STR, "category given in the source list; null where none was"),
    Column("author", STR, "author given in the source list; null where none was"),
    Column("licence", STR, "licence given in the source list; null where none was"),
    Column("given_caption", STR, "caption given in the source list; null where none was"),
    Column(
        "given_captions",
        STRINGS,
        "all captions given in source lists, in the order of their rows, `given_caption` first; empty "
        "where none was",
    ),
    Column(
        "listing_reject",
        STR,
        "why a row of a source list cannot be fetched ('bad_address', 'bad_row'); else null",
    ),
    Column(
        "listing_reject_detail", STR, "what was seen, for a person; null where it can be fetched"
    ),
)

PROBE = (
    Column("source_sha256", STR, "digest of the source's bytes; null where they could not be read"),
    Column(
        "source_reject", STR, "why the source is unusable (a word of REJECT_REASONS); else null"
    ),
    Column("source_reject_detail", STR, "what was seen, for a person; null where usable"),
    Column(
        "served_from",
        STR,
        "http(s) address that gave the bytes, after redirects, without its query; null for other sources "
        "and where none gave any",
    ),
    Column(
        "opt_out",
        STR,
        "what the web server says against the use of the source, joined by '+': 'noai', 'noimageai' "
        "(X-Robots-Tag), 'robots' (robots.txt), 'tdm-reservation'; 'none' where it says nothing and for "
        "sources from elsewhere; null where rejected before it was known",
    ),
    Column("container", STR, "container format by content, such as 'mov'; null where rejected"),
    Column("codec", STR, "codec of the picture stream, such as 'h264'; null where rejected"),
    Column("pixel_format", STR, "as the decoder names it, such as 'yuv420p'; null as codec"),
    Column(
        "source_width", I32, "shown width: after rotation and pixel aspect; null as codec", "px"
    ),
    Column("source_height", I32, "shown height; null as codec", "px"),
    Column("rotation_deg", I32, "clockwise turn that the container asks for: 0 90 180 270", "deg"),
    Column(
        "mirrored",
        BOOL,
        "whether the container asks for left and right exchanged, before the turn; null as codec",
    ),
    Column("bit_depth", I32, "bits of a sample of the stored picture; null as codec"),
    Column(
        "transfer",
        STR,
        "transfer characteristics of the stored picture in libav's words: 'smpte2084' is PQ, "
        "'arib-std-b67' HLG, 'unspecified' taken for BT.709; null as codec",
    ),
    Column(
        "primaries",
        STR,
        "its primaries in libav's words, such as 'bt2020'; 'unspecified' taken for BT.709; null as "
        "codec",
    ),
    Column(
        "source_fps",
        F32,
        "mean frame rate, as stated where the frames' timestamps bear it out, else theirs; null for "
        "images",
        "1/s",
    ),
    Column(
        "source_duration_s",
        F32,
        "from the first to the end of the last decoded frame; 0 for images",
        "s",
    ),
    Column("source_num_frames", I32, "frames decoded; null where rejected"),
    Column(
        "source_num_damaged_frames",
        I32,
        "frames that the decoder flags as damaged or that are made from such, and frames that are "
        "missing (where the file is cut off: those that its header states, at least one); null as "
        "codec",
    ),
    Column(
        "num_clock_jumps",
        I32,
        "how often the stream's clock restarts, leaps or steps back; null as codec",
    ),
    Column("has_audio", BOOL, "whether there is an audio stream; null as codec"),
    Column("num_scenes", I32, "rows of this source in the scenes layer; 0 where rejected"),
)

SCENES = (
    Column("clip_id", STR, "uuid5 of source digest and span: the same for the same bytes and span"),
    Column("source_row", I32, "row of the source in the sources file of this part"),
    Column("scene_index", I32, "position of the scene in its source, from 0"),
    Column(
        "shot_index",
        I32,
        "which continuous shot of the source it is of, from 0: pieces of a long shot have the same, and "
        "so do scenes on both sides of damage or of a jump of the clock whose pictures are alike",
    ),
    Column(
        "scene_reject",
        STR,
        "'too_short' (under the minimum seconds or frames), 'interlaced' (where asked for), else "
        "null",
    ),
    Column(
        "start_pts",
        I64,
        "timestamp of the first frame, in time_base units, behind a jump of the clock as if it had "
        "gone on; 0 for images",
    ),
    Column(
        "end_pts",
        I64,
        "timestamp at which the last frame ends (not part of the clip); 1 for images",
    ),
    Column("time_base_num", I32, "numerator of the stream's time base; 1 for images"),
    Column("time_base_den", I32, "denominator of the stream's time base; 1 for images"),
    Column(
        "start_s", pa.float64(), "start on the source's clock, first frame of the stream = 0", "s"
    ),
    Column("end_s", pa.float64(), "end on the same clock; 0 for images", "s"),
    Column("duration_s", F32, "end - start; 0 for images", "s"),
    Column("start_frame", I32, "index of the first frame in decoding output order"),
    Column("num_frames", I32, "frames that were decoded from start_pts up to end_pts"),
    Column(
        "num_damaged_frames",
        I32,
        "of these, frames that the decoder flags as damaged, that are made from such, or before which "
        "frames are missing",
    ),
    Column("fps", F32, "num_frames / duration; null for images", "1/s"),
    Column("width", I32, "shown width", "px"),
    Column("height", I32, "shown height", "px"),
    Column(
        "colour",
        STR,
        "how the stored frames are coded: matrix/range/transfer/primaries in libav's words, what "
        "the file leaves out filled in (HD is BT.709, SD BT.601); keyframes and clips are SDR",
    ),
    Column(
        "interlaced",
        STR,
        "'progressive', 'interlaced' (every frame is two fields of different moments) or "
        "'telecined' (some are), by the pictures and, where nothing moves, by the flags; keyframes "
        "and exactly cut clips show no combs",
    ),
    Column(
        "cut_in",
        STR,
        "what begins the clip: 'start' 'cut' 'fade' 'dissolve' 'wipe', 'discontinuity' (the stream's clock "
        "jumps there, whole groups of pictures are missing, or its pictures change shape), 'damage' "
        "(frames are damaged or missing there), 'stride' (a long shot goes on)",
    ),
    Column("cut_out", STR, "what ends it: 'end' or as cut_in"),
    Column(
        "cut_in_confidence",
        F32,
        "how sure the cut, fade, dissolve or wipe at the start is, 0 to 1: of a cut 1 - the likeness "
        "of the pictures on its sides, moved or in other light; of a gradual one 1 (best) to 0.5 (at "
        "the limit of the test) by its fit; null for other edges and from TransNetV2",
    ),
    Column("cut_out_confidence", F32, "the same at the end"),
    Column(
        "motion_mean",
        F32,
        "mean over frame pairs, sampled twice a second, of the pair's mean optical-flow length; "
        "null for images and scenes with fewer than two samples",
        "short sides/s",
    ),
    Column(
        "motion_p10",
        F32,
        "10th percentile over frame pairs of the same; null as motion_mean",
        "short sides/s",
    ),
    Column("motion_p50", F32, "median of the same; null as motion_mean", "short sides/s"),
    Column("motion_p90", F32, "90th percentile of the same; null as motion_mean", "short sides/s"),
    Column(
        "still_share",
        F32,
        "share of sampled frame pairs whose luma changes by less than 1 of 255 on average; null as "
        "motion_mean",
        "0..1",
    ),
    Column(
        "camera_motion",
        STR,
        "how the camera moves, by the flow that most of the picture follows: 'static' 'pan_left' "
        "'pan_right' 'tilt_up' 'tilt_down' 'zoom_in' 'zoom_out' 'roll_clockwise' "
        "'roll_counterclockwise' (of the camera), 'shake', 'mixed' (several, or none that can be "
        "followed); travelling is not told from turning; null as motion_mean, and where the picture "
        "is too plain",
    ),
    Column(
        "camera_speed",
        F32,
        "mean speed at which the camera moves the picture; null as camera_motion, and where no "
        "movement can be followed",
        "short sides/s",
    ),
    Column(
        "camera_shake",
        F32,
        "standard deviation of how fast the picture moves from one frame to the next, from its mean "
        "over half a second; null with fewer than three such moments",
        "short sides/s",
    ),
    Column(
        "object_motion",
        F32,
        "mean optical-flow length without the camera's part; over-rated where the camera moves by "
        "more than half a short side a second; null as camera_motion",
        "short sides/s",
    ),
    Column(
        "frozen_share",
        F32,
        "share of the clip's time in stretches of half a second or more that show one picture: none changes "
        "by more than -60 dB (0.255 of 255 on average) against the first, as ffmpeg's freezedetect has "
        "it; null for images",
        "0..1",
    ),
    Column(
        "brightness_mean",
        F32,
        "mean luma over sampled frames, short side at most 144 px; null, as the next six, for a "
        "rejected scene without a sampled frame",
        "0..255",
    ),
    Column("contrast_mean", F32, "standard deviation of luma, mean over sampled frames", "0..128"),
    Column(
        "dark_share", F32, "share of pixels with luma under 20, mean over sampled frames", "0..1"
    ),
    Column(
        "bright_share", F32, "share of pixels with luma over 235, mean over sampled frames", "0..1"
    ),
    Column("saturation_mean", F32, "mean of max(R,G,B) - min(R,G,B), through 255", "0..1"),
    Column("sharpness", F32, "variance of the 3x3 Laplacian of luma, median over sampled frames"),
    Column(
        "border_share",
        F32,
        "share of the picture that is black rim in every sampled frame",
        "0..1",
    ),
    Column(
        "picture_area",
        pa.list_(I32),
        "left, top, width and height of the part of the shown picture inside black bars (pairs of about "
        "the same width, black in every sampled frame), to which `--crop-borders` cuts; the whole picture "
        "where there are none, null without a sampled frame",
        "px",
    ),
    Column(
        "blur",
        F32,
        "blur effect (Crete et al. 2007) at the stored size, 0 sharp to 1: lower quartile of squares of "
        "160 px, one of each sampled frame; a film made larger or coded coarsely has more. Null where "
        "all of them are plain",
        "0..1",
    ),
    Column(
        "bits_per_pixel",
        F32,
        "size of the stored packets over the stored pixels of their frames, sound left out: how hard the "
        "source is compressed, to be compared within a codec; null where packets have no times (AVI)",
        "bit",
    ),
    Column(
        "perceptual_hashes",
        pa.list_(pa.uint64()),
        "64-bit DCT hash of each keyframe, of what lies between black bars where the scene has them on both "
        "sides, in their order; empty as keyframes",
    ),
)

KEYFRAMES = (
    Column(
        "keyframes",
        pa.list_(pa.binary()),
        "JPEG bytes, in the middle of equal parts of the clip, upright, square pixels; empty for a "
        "rejected scene",
    ),
    Column("keyframe_s", pa.list_(F32), "time of each on the source's clock; 0 for images", "s"),
)

EMBEDDINGS = (
    Column(
        "embedding",
        pa.list_(F32),
        "mean over keyframes of the unit-length embeddings, unit length again; empty without any",
    ),
    Column("frame_embeddings", pa.list_(pa.list_(F32)), "unit-length embedding of each keyframe"),
    Column(
        "frame_norms",
        pa.list_(F32),
        "length of each keyframe's embedding before it was made unit length; the product is what "
        "the network gave, for a head that was trained on it",
    ),
    Column(
        "embedding_model",
        STR,
        "the network: open_clip's architecture/tag, or 'efficientnet-lite0'; the same in every row",
    ),
)

AESTHETICS = (
    Column(
        "aesthetic_score",
        F32,
        "LAION aesthetic score, mean over keyframes; null without any",
        "about 0..10",
    ),
    Column("aesthetic_min", F32, "the lowest of the keyframes; null without any", "about 0..10"),
)

OVERLAY_TEXT = (
    Column(
        "text_area_share",
        F32,
        "share of the picture under lines of text that could be read, mean over keyframes; null, as "
        "all of this layer, without any",
        "0..1",
    ),
    Column("text_area_max", F32, "the largest of the keyframes", "0..1"),
    Column("text_num_boxes", F32, "lines of text in a keyframe, mean"),
    Column(
        "overlay_text_share",
        F32,
        "of text_area_share, what was laid over the film: lines that stand at one place of the "
        "picture in several keyframes or roll through it; titles, subtitles, credits, time stamps, names "
        "of channels",
        "0..1",
    ),
    Column("overlay_text_max", F32, "the largest of the keyframes", "0..1"),
    Column(
        "scene_text_share",
        F32,
        "of text_area_share, what goes with the scene, such as signs",
        "0..1",
    ),
    Column("has_subtitles", BOOL, "whether overlaid text has the place and height of subtitles"),
    Column("is_credits", BOOL, "whether lines roll through the picture or fill a page"),
    Column("overlay_text", STRINGS, "what the overlaid lines read, each once, as they appear"),
)

LOGOS = (
    Column(
        "logo",
        STR,
        "whether a logo or watermark lies over the clip, by what stays in the pictures of its source while "
        "they change: 'yes', 'no', or 'unknown' where too little changes to tell; null without two keyframes",
    ),
    Column(
        "logo_share",
        F32,
        "share of the picture under their boxes; null where logo is 'unknown' or null",
        "0..1",
    ),
    Column(
        "logo_position",
        STR,
        "third of the picture in which the largest lies: 'top_left' 'top' 'top_right' 'left' 'centre' "
        "'right' 'bottom_left' 'bottom' 'bottom_right'; null without one",
    ),
    Column(
        "logo_box",
        pa.list_(F32),
        "left, top, width and height of the largest in shares of the picture; null without one",
        "0..1",
    ),
)

SAFETY = (
    Column(
        "nsfw_score",
        F32,
        "probability of explicit content, highest keyframe; null without any",
        "0..1",
    ),
)

TAXONOMY = (
    Column(
        "category",
        STR,
        "likeliest of Vimeo's ten; null without keyframes, and where the engine gives tags",
    ),
    Column("category_score", F32, "its probability among the categories; null as category", "0..1"),
    Column(
        "tags",
        STRINGS,
        "what the keyframes show, likeliest first; empty without any, and where the engine gives "
        "categories",
    ),
    Column("tag_scores", pa.list_(F32), "probability of each tag, mean over keyframes", "0..1"),
)

CAPTIONS = (
    Column("caption", STR, "the caption to train with, short; null where there is none"),
    Column(
        "caption_long", STR, "a paragraph; null where neither a model nor a `timed` file gave one"
    ),
    Column(
        "captions",
        STRINGS,
        "texts to train with: `caption`, `caption_long`, the source's own; all that were given, where "
        "no model wrote the caption; empty where there is none",
    ),
    Column(
        "caption_weights",
        pa.list_(pa.float32()),
        "how often to draw each of `captions`; sums to 1, empty likewise",
        "0..1",
    ),
    Column("caption_subject", STR, "who or what; null where no model wrote the caption"),
    Column("caption_action", STR, "what it does; null likewise, empty where nothing happens"),
    Column("caption_setting", STR, "where and when; null likewise"),
    Column("caption_style", STR, "the look; null likewise"),
    Column("caption_camera", STR, "shot size and movement; null likewise"),
    Column(
        "caption_screen_text",
        STR,
        "text that the model read in the picture; null likewise, empty where there is none",
    ),
    Column(
        "caption_engine",
        STR,
        "'timed', 'given', 'tags' (stop-gap, not a caption model), or the model engine that was asked "
        "('transformers', 'endpoint', 'vllm'); null where no engine had a word to say",
    ),
    Column(
        "caption_model",
        STR,
        "model that was asked, or the column or station that the text came from; null as engine",
    ),
    Column(
        "caption_model_digest",
        STR,
        "sha256 over the model's files, or what the server calls its fingerprint; null where no "
        "model was asked or its server says nothing",
    ),
    Column(
        "caption_prompt",
        STR,
        "name, version and digest of the prompt; null where no model was asked",
    ),
    Column(
        "caption_tokens_in",
        I32,
        "tokens of prompt and pictures over all tries; null where no model counted any",
    ),
    Column("caption_tokens_out", I32, "tokens that the model wrote over all tries; null likewise"),
    Column(
        "caption_status",
        STR,
        "'ok', 'nothing_given' or 'no_tags' (the last engine asked had nothing to say), "
        "'no_keyframes' (nothing to show a model), 'failed' (see reason; can be asked again)",
    ),
    Column(
        "caption_reason",
        STR,
        "why a model gave no caption (a word of `curation.stations.caption_models.captioner.FAILURES`); null "
        "unless failed",
    ),
    Column("caption_detail", STR, "what was seen then, for a person; null unless failed"),
)

CAPTION_TEXT = (
    Column(
        "caption_words",
        I32,
        "words in the caption, a Chinese character or kana counting as one; 0 where "
        "there is no caption",
    ),
    Column(
        "caption_language",
        STR,
        "ISO 639-1 code (639-3 where there is none); null where there is no caption",
    ),
    Column("caption_language_score", F32, "the detector's confidence; null as language", "0..1"),
    Column("caption_repetition", F32, "1 - distinct/all word pairs; null as language", "0..1"),
    Column(
        "caption_boilerplate",
        I32,
        "phrases such as 'the video shows' or 'in this clip' in the worst of the clip's captions; "
        "English; 0 where there is no caption",
    ),
    Column(
        "caption_refusals",
        I32,
        "phrases such as 'I cannot' or 'as an AI' in the worst of them; English; 0 likewise",
    ),
    Column(
        "caption_prompt_leak",
        F32,
        "share of five-word runs that stand in the prompt too, the worst of them; null where there "
        "is no caption",
        "0..1",
    ),
    Column(
        "caption_urls",
        I32,
        "addresses (web, mail, handles) in the worst of them; 0 where there is no caption",
    ),
    Column(
        "caption_digit_share",
        F32,
        "digits among letters and digits of the caption; null where there is no caption",
        "0..1",
    ),
    Column(
        "caption_screen_text_overlap",
        F32,
        "share of the caption's words that stand in the text the model read in the picture; null "
        "where there is no caption, or it read none",
        "0..1",
    ),
)

ALIGNMENT = (
    Column(
        "clip_similarity",
        F32,
        "cosine of the caption's and a keyframe's CLIP embedding, mean over keyframes; null "
        "without caption or keyframes, and where the engine is the substitute",
        "-1..1",
    ),
    Column("clip_similarity_min", F32, "the lowest of the keyframes; null likewise", "-1..1"),
    Column(
        "tag_agreement",
        F32,
        "substitute without CLIP: cosine of the caption and the tags as sentence embeddings, mean "
        "weighted by tag score; null without caption or tags, where the caption was made of "
        "tags, and where the engine is CLIP",
        "-1..1",
    ),
    Column("alignment_model", STR, "the network that compared; the same in every row"),
)

SELECTION = (
    Column("clip_id", STR, "as in the scenes layer"),
    Column("keep", BOOL, "whether the clip is selected"),
    Column(
        "failed_rules",
        STRINGS,
        "name of every rule that the clip fails, in the order of rules.json; a rejected scene's is "
        "'scene_reject' alone; empty where kept",
    ),
    Column(
        "tier",
        STR,
        "the highest tier whose bounds the clip meets; null where rejected, or where it meets none",
    ),
    Column(
        "duplicate_group",
        STR,
        "clip_id of the group's kept clip, also on that clip; null where it has no look-alike",
    ),
    Column("bucket", STR, "shard bucket such as '16x9-720p-4to8s'; null where rejected"),
    Column(
        "sampling_weight",
        F32,
        "how often to draw the clip, mean 1 over kept clips; null where rejected",
    ),
    Column(
        "cluster",
        I32,
        "number of the cluster of embeddings that the clip is in, the same for all selections and "
        "generations; null without an embedding or clusters, and for rejects of rules",
    ),
    Column(
        "cluster_distance", F32, "1 - cosine with the cluster's centre; null as cluster", "0..2"
    ),
    Column(
        "semantic_duplicate_of",
        STR,
        "clip_id of the better clip of the cluster that shows the same, where the clip was dropped for it; "
        "else null",
    ),
    Column(
        "caption_count",
        I32,
        "scenes of the corpus with the very same caption, letter by letter, this one included; 0 without "
        "one; null for rejected scenes, and where neither limit nor rule asks for it",
    ),
    Column(
        "split",
        STR,
        "'train', 'val' or 'test': that of the clip's source and of all that show the same, for good "
        "once it is exported; null where rejected, and where it would tie different ones together",
    ),
)

SHARD_ROWS = (
    Column("clip_id", STR, "as in the scenes layer"),
    Column("bucket", STR, "folder of the shard under the selection's shards"),
    Column(
        "shard",
        STR,
        "path of the tar relative to the selection's shards; null where cutting failed",
    ),
    Column(
        "key",
        STR,
        "name of the sample in the tar, without extension; null where cutting failed, like all "
        "columns below that do not say otherwise",
    ),
    Column("export_reject", STR, "why the clip could not be cut (EXPORT_REJECTS), else null"),
    Column("export_reject_detail", STR, "what was seen, for a person; null where the clip was cut"),
    Column("media_name", STR, "member name of the .mp4 or .jpg"),
    Column("media_offset", I64, "first byte of the media in the tar", "bytes"),
    Column("media_size", I64, "length of the media", "bytes"),
    Column("json_offset", I64, "first byte of the .json in the tar", "bytes"),
    Column("json_size", I64, "length of the .json", "bytes"),
    Column("txt_offset", I64, "first byte of the .txt in the tar", "bytes"),
    Column("txt_size", I64, "length of the .txt; 0 where there is no caption", "bytes"),
    Column("caption", STR, "as in the captions layer, also where cutting failed"),
    Column(
        "caption_engine",
        STR,
        "as in the captions layer, also where cutting failed; null where there is no caption, and in "
        "shards of a program that did not write it",
    ),
    Column("num_frames", I32, "frames in the media file"),
    Column("fps", F32, "num_frames / duration_s of the media file; null for images", "1/s"),
    Column("duration_s", F32, "of the media file; 0 for images", "s"),
    Column("width", I32, "shown width of the media file", "px"),
    Column("height", I32, "shown height of the media file", "px"),
    Column("tier", STR, "as in the selection, also where cutting failed"),
    Column("sampling_weight", F32, "as in the selection, also where cutting failed"),
    Column(
        "split",
        STR,
        "as in the selection, also where cutting failed; null also in shards of earlier versions",
    ),
    Column("source_sha256", STR, "digest of the source's bytes, also where cutting failed"),
    Column(
        "facts_digest",
        I64,
        "64-bit digest of what the .json tells of source and clip: by it export finds samples whose "
        "texts have changed; null also in shards of earlier versions",
    ),
    Column(
        "facts_generation",
        I32,
        "the generation that the .json was written for, whose digest is its `export`: that of the shard, "
        "or an earlier one where the sample was copied as it was; null also in shards of earlier versions",
    ),
    Column(
        "tried_before",
        I32,
        "exports before this one that could not cut the clip, also where cutting failed again; null for 0",
    ),
)
"""One row a clip of one shard, as it was when the shard was made."""

SHARD_INDEX = (
    *SHARD_ROWS,
    Column("generation", I32, "the export that made the shard, from 1, also where cutting failed"),
    Column(
        "still_selected",
        BOOL,
        "whether the selection keeps the clip today: false where a later delivery moved a bound or "
        "brought a better one of its kind; tier and sampling_weight are then those of its shard",
    ),
)
"""One row a clip of all shards."""

ENCODED = (
    Column("clip_id", STR, "as in the scenes layer"),
    Column("start_s", F32, "of the first frame, from the clip's first; 0 for images", "s"),
    Column("num_frames", I32, "F, frames that were encoded; 1 for images"),
    Column("latent_height", I32, "h of the latents"),
    Column("latent_width", I32, "w of the latents"),
    Column(
        "mean",
        pa.binary(),
        "mean of the latents, unscaled: little-endian numbers [C, F, h, w]; C and the number format "
        "stand in plan.json",
    ),
    Column("logvar", pa.binary(), "logarithm of their variance, likewise"),
    Column("captions", STRINGS, "texts to train with, as in the sample's .json"),
    Column("caption_weights", pa.list_(pa.float32()), "how often to draw each", "0..1"),
    Column(
        "text_states",
        pa.list_(pa.binary()),
        "states of each caption: little-endian numbers [L, D]; L and D stand in plan.json",
    ),
)
"""One row, and one row group, for each start of each clip."""

ENCODED_ROWS = (
    Column("clip_id", STR, "as in the scenes layer"),
    Column("media", STR, "'video' or 'image'"),
    Column("shard", STR, "file of its latents under the layer's folder; null where there are none"),
    Column(
        "encode_reject",
        STR,
        "why the clip was not encoded: 'no caption', 'too short', 'frame rate too far off', 'too small', "
        "'undecodable', 'truncated'; else null",
    ),
    Column("row_group", I32, "of its first start in that file; null where there are none"),
    Column("num_starts", I32, "row groups that it has there; 0 where there are none"),
    Column("height", I32, "of the frames that were encoded, also where they were not", "px"),
    Column("width", I32, "of the frames that were encoded, also where they were not", "px"),
    Column("duration_s", F32, "of the media file; 0 for images", "s"),
    Column("frame_rate", F32, "frames that were taken of a second of it; null for images", "1/s"),
    Column("sampling_weight", F32, "as in the selection"),
    Column("source_sha256", STR, "digest of the source's bytes"),
)
"""One row a clip of one shard, as it was encoded."""

ENCODED_INDEX = (
    *ENCODED_ROWS,
    Column("split", STR, "as in the index of the shards"),
    Column("still_selected", BOOL, "as in the index of the shards"),
)
"""One row a clip of all shards."""

LAYERS: dict[str, Layer] = {
    "probe": Layer("One row a source: what the file is, or why it was rejected.", PROBE),
    "scenes": Layer(
        "One row a scene: its span, motion and picture statistics, all from one decoding pass.",
        SCENES,
    ),
    "keyframes": Layer(
        "The sampled frames of each scene, from the same pass; later stations read only these.",
        KEYFRAMES,
    ),
    "embeddings": Layer("What the keyframes look like, as vectors.", EMBEDDINGS),
    "aesthetics": Layer("How pleasing the keyframes are.", AESTHETICS),
    "overlay_text": Layer(
        "How much of the picture is text, and how much of that was laid over it.", OVERLAY_TEXT
    ),
    "logos": Layer("What stays over the picture: logos and watermarks.", LOGOS),
    "safety": Layer("How likely explicit content is.", SAFETY),
    "taxonomy": Layer("Category and tags.", TAXONOMY),
    "captions": Layer("A sentence for the clip, and who wrote it.", CAPTIONS),
    "caption_text": Layer("What can be said of the sentence without the picture.", CAPTION_TEXT),
    "alignment": Layer("How well the sentence fits the picture.", ALIGNMENT),
}
"""Layer name -> what it adds. `probe` has a row a source, all others a row a scene."""

SOURCE_COLUMNS: dict[str, Column] = {c.name: c for c in (*SOURCES, *PROBE)}
"""Columns that a source has; its clips see them through `source_row`."""

CLIP_COLUMNS: dict[str, Column] = {
    column.name: column
    for name, layer in LAYERS.items()
    if name != "probe"
    for column in layer.columns
}
"""Columns that a clip has of its own."""

LAYER_OF: dict[str, str] = {
    column.name: name for name, layer in LAYERS.items() for column in layer.columns
} | {column.name: "sources" for column in SOURCES}
"""Column name -> the layer that adds it ('sources' for what the list of sources gives)."""

VIDEO_COLUMNS = frozenset(
    (
        *("source_fps", "source_duration_s", "source_num_frames"),
        *("start_s", "end_s", "duration_s", "start_frame", "num_frames", "fps"),
        *("motion_mean", "motion_p10", "motion_p50", "motion_p90", "still_share"),
        *("camera_motion", "camera_speed", "camera_shake", "object_motion"),
        *("frozen_share", "logo", "logo_share", "logo_position", "logo_box"),
    )
)
"""Columns that say nothing of a still image: null there, or a stand-in such as 0 s or 1 frame."""


def schema(columns: tuple[Column, ...]) -> pa.Schema:
    """The Arrow schema of some columns, docs and units included."""
    return pa.schema([column.field for column in columns])


def layer_schema(name: str) -> pa.Schema:
    """The Arrow schema of one layer's file.

    Every layer with a row a scene begins with `clip_id`, by which its rows are checked against the
    scenes layer's; they are in the same order, so no join by key is ever needed.
    """
    columns = LAYERS[name].columns
    if name in ("probe", "scenes"):
        return schema(columns)
    return schema((CLIP_COLUMNS["clip_id"], *columns))
