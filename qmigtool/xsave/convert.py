"""The ``strict`` policy: convert an area between formats and layouts; refuse to lose live state.

The rules, from SDM volume 1, 13.4 to 13.12, and checked against XSAVE, XSAVEC and XRSTOR on a Zen 4:

- A component whose XSTATE_BV bit is 0 is in its initial configuration. Its bytes in memory are stale (x87 and SSE too)
  and are never read; the result has the initial configuration there, and zeros for the extended components.
- State that differs from the initial configuration and has no place in the target is an error, unless ``drop``
  allows that loss. Supervisor state is never lost: what the target cannot hold is returned for the MSRs.
- MXCSR: the compacted format has it only if XSTATE_BV[1] is 1; the standard format always. If it is not 1F80, the
  result has XSTATE_BV[1] = 1, because otherwise a compacted XRSTOR and KVM would load 1F80.
- The header's reserved bytes must be zero and stay zero; MXCSR_MASK and bytes 416-511 become zero.

The moves themselves are those of a :class:`qmigtool.xsave.plan.Plan`.
"""

from __future__ import annotations

from collections.abc import Mapping

from qmigtool.errors import XsaveError
from qmigtool.xsave.components import APX_MASK, COMPONENTS, MPX_MASK, PAGE_SIZE, XCOMP_BV_COMPACTED, Format
from qmigtool.xsave.header import area_format, header
from qmigtool.xsave.layout import Layout
from qmigtool.xsave.plan import Plan, Result, make_plan

__all__ = ["Plan", "Result", "convert", "default_mask", "make_plan", "mshv_buffer_size"]


def convert(
    area: bytes,
    source: Layout,
    to: Format,
    *,
    target: Layout | None = None,
    mask: int | None = None,
    supervisor: Mapping[int, bytes] | None = None,
    drop: int = 0,
    max_size: int | None = None,
    hyperv_quirk: bool = False,
) -> Result:
    """Convert ``area``, of the layout ``source``, to the format ``to`` in the layout ``target``.

    ``target`` defaults to ``source``, ``mask`` to :func:`default_mask`. ``drop`` is the mask of components
    whose loss is allowed; a component with a place is never dropped. ``max_size`` is the caller's buffer in bytes.
    ``hyperv_quirk`` sets XSTATE_BV |= XCOMP_BV & 0x1C00 in a compacted source.

    Raises LiveStateError and XsaveError as :meth:`Plan.apply` does, and XsaveError if the result is over ``max_size``.
    """
    target = target or source
    xstate_bv, xcomp_bv = header(area)
    form = area_format(area)
    source_mask = xcomp_bv & ~XCOMP_BV_COMPACTED if form is Format.COMPACTED else source.user_mask
    if mask is None:
        beside = sum(1 << bit for bit in supervisor or () if bit in COMPONENTS or bit in source.rows)
        beside |= source_mask & source.supervisor_mask
        mask = default_mask(target, to, declared=xstate_bv, supervisor=beside)
    plan = make_plan(source, form, source_mask, target, to, mask, drop=drop, hyperv_quirk=hyperv_quirk)
    if max_size is not None and plan.target_size > max_size:
        raise XsaveError(
            f"the {to} area of {target.name} with mask {plan.target_mask:#x} needs {plan.target_size} bytes",
            expected=f"at most {max_size}",
        )
    return plan.apply(area, supervisor=supervisor)


def default_mask(target: Layout, to: Format, *, declared: int = 0, supervisor: int = 0) -> int:
    """Return the default components of a target area.

    They are the user components of ``target``, and in compacted format its components of ``supervisor``. A layout
    with both MPX and APX_F (``qemu``) cannot use both: MPX is left out if ``declared`` has APX_F, otherwise APX_F is.
    """
    mask = target.user_mask
    if target.overlapping(mask):
        mask &= ~(MPX_MASK if declared & APX_MASK else APX_MASK)
        mask |= declared & target.user_mask
    return mask | supervisor & target.supervisor_mask if to is Format.COMPACTED else mask


def mshv_buffer_size(size: int) -> int:
    """Return the size of the buffer for MSHV_GET/SET_VP_STATE for ``size`` bytes: whole pages, one or more.

    Source: Linux drivers/hv, where buf_sz must be a multiple of the page size. MAX_XSAVE_DATA_SIZE, a partition
    property, may require more.
    """
    return max(1, -(-size // PAGE_SIZE)) * PAGE_SIZE
