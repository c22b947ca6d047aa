"""What the commands have in common: how they are called, and how they end."""
import argparse
import sys

from .machine import Trouble


def parser(name, description):
    return argparse.ArgumentParser(prog=name, description=description,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)


def exit_code(name, run, arguments):
    """Of the command `name`: what run(arguments) gives, 2 with a word to the user if something is in its way."""
    try:
        return run(arguments)
    except Trouble as trouble:
        print(f"{name}: {trouble}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
