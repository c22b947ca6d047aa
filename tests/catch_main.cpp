// The main() of every Catch2 program; in a file of its own because compiling it is slow.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
