"""Runs untrusted programs and judges them from outside (docs/verifier.md)."""

from ra3core.verifier.judge import WORKERS, SandboxError, Verifier
from ra3core.verifier.program import Check, Program, Recording, Script, StdioTest, Verdict

__all__ = ["WORKERS", "Check", "Program", "Recording", "SandboxError", "Script", "StdioTest", "Verdict", "Verifier"]
