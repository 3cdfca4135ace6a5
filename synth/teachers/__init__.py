"""Teachers: what answers a chat. One file for each engine, imported only when a recipe names it.

To change the protocol, edit `teacher.py`; the recipe's section `teacher`, or which vLLM arguments change only speed,
`config.py`; mixtures, `mixture.py` (the section) and `router.py` (which teacher is open); an engine, `vllm.py`,
`transformers.py`, `openai.py` (any endpoint), `vllm_server.py` (a server of ours) or `fake.py`; names and resolved
values of vLLM's arguments, `vllm_engine_args.py`; what is set before vLLM is imported, `vllm_import.py`; how a stream
is decoded, `chat_stream.py`; log-probabilities of an answer and their record on disk, `logprobs.py`; the number of
requests in flight, `concurrency_limiter.py`; what an error of an endpoint concerns, `endpoint_error.py`; retries,
`openai.py`; starting and restarting an endpoint, `endpoint.py` and `vllm_server.py`; how its processes end,
`process_supervisor.py`; from a section to a teacher, `build.py`.
"""
