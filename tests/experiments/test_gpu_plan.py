"""The plan reads compiled programs; what it says of a real one needs a compiler for GPUs."""

import os
from unittest import mock

with mock.patch.dict(os.environ):  # where it hides accelerators, for itself alone
    from experiments import gpu_plan

PROGRAM = """
%fused_slice (param_0: f32[10,8], param_1: s32[]) -> f32[1,8] {
  %param_0 = f32[10,8]{1,0} parameter(0)
  %param_1 = s32[] parameter(1)
  %constant.0 = s32[] constant(0)
  ROOT %dynamic-slice.1 = f32[1,8]{1,0} dynamic-slice(%param_0, %param_1, %constant.0), sizes={1,8}
}

%fused_update (param_0.1: f32[10,8], param_1.1: f32[1,8], param_2.1: s32[]) -> f32[10,8] {
  %param_0.1 = f32[10,8]{1,0} parameter(0)
  %param_1.1 = f32[1,8]{1,0} parameter(1)
  %param_2.1 = s32[] parameter(2)
  %constant.1 = s32[] constant(0)
  ROOT %dus.1 = f32[10,8]{1,0} dynamic-update-slice(%param_0.1, %param_1.1, %param_2.1, %constant.1)
}

%body (p: (s32[], f32[10,8])) -> (s32[], f32[10,8]) {
  %p = (s32[], f32[10,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %stack = f32[10,8]{1,0} get-tuple-element(%p), index=1
  %row = f32[1,8]{1,0} fusion(%stack, %i), kind=kLoop, calls=%fused_slice
  %stored = f32[10,8]{1,0} fusion(%stack, %row, %i), kind=kLoop, calls=%fused_update
  ROOT %tuple.1 = (s32[], f32[10,8]{1,0}) tuple(%i, %stored)
}

%condition (p.1: (s32[], f32[10,8])) -> pred[] {
  ROOT %constant.2 = pred[] constant(true)
}

ENTRY %main (x: f32[10,8], k: bf16[3,3,8,4]) -> bf16[2,6,6,4] {
  %x = f32[10,8]{1,0} parameter(0)
  %k = bf16[3,3,8,4]{3,2,1,0} parameter(1)
  %zero = s32[] constant(0)
  %start = (s32[], f32[10,8]{1,0}) tuple(%zero, %x)
  %loop = (s32[], f32[10,8]{1,0}) while(%start), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"10"}}
  %conv = (bf16[2,6,6,4]{3,2,1,0}, u8[64]{0}) custom-call(%x, %k), \
custom_call_target="__cudnn$convForward"
  ROOT %out = bf16[2,6,6,4]{3,2,1,0} get-tuple-element(%conv), index=0
}
"""


def test_sizes():
    assert gpu_plan.size("f32[2,3]{1,0}") == 24
    assert gpu_plan.size("(bf16[5]{0}, pred[], s64[2]{0})") == 10 + 1 + 16
    assert gpu_plan.size("token[]") == 0


def test_kernels_with_their_loops_slices_and_updates():
    found = {kernel.name: kernel for kernel in gpu_plan.kernels(PROGRAM)}
    assert set(found) == {"row", "stored", "conv"}
    # A row of eight numbers and the index, read; the row, written.
    assert (found["row"].runs, found["row"].bytes) == (10, 32 + 4 + 32)
    # The row and the index, read; of the stack what is written.
    assert (found["stored"].runs, found["stored"].bytes) == (10, 32 + 4 + 32)
    assert found["conv"].kind == "__cudnn$convForward" and found["conv"].runs == 1
    assert found["conv"].bytes == 320 + 2 * 288 + 2 * 288 + 64


def test_the_description_of_the_card_is_complete():
    text = gpu_plan.target()
    assert text.count("{") == text.count("}") == 4 and "memory_bandwidth" in text
