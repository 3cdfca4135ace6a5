"""A backend `cpu` of Triton, which never compiles: with TRITON_INTERPRET=1 kernels are interpreted. vLLM's CPU build
starts its model runner V2 where there is one."""
