"""Tests of outages, on one system. A fixture of the scope `package` needs this file."""
