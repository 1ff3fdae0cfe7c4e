"""The commands on protected stages: their policy, signed verdicts, requests and approvals."""
