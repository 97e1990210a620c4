"""What asks a vision-language model about the keyframes of clips.

::

    captioner           a question (frames of one clip), the reply, who answers
    config              settings of the three engines; light, so that presets can name them
    prompts             the prompts, one file a version
    answer              the JSON that a prompt asks for, checked
    checkpoint          a model folder: a path, or what lies in the Hugging Face cache
    transformers_model  engine 'transformers': image-text-to-text models in this process
    endpoint            engine 'endpoint': any server that speaks OpenAI's chat completions
    chat                the shapes of OpenAI's requests and answers
    retries             when to ask a server again, and how long to wait
    vllm_model          engine 'vllm': vLLM in this process (optional extra)

Only the engine that was chosen is imported, in the station's `setup`.
"""
