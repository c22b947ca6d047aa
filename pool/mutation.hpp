// Planted bugs, for showing that the simulator finds them. In the program that ships PGWEIR_MUTANT(n) is the constant
// false and costs nothing; in the build of sim_mutants it is true for the one number that the command line chose.
#pragma once

#ifdef PGWEIR_MUTATION
extern int pgweir_mutation;
#define PGWEIR_MUTANT(n) (pgweir_mutation == (n))
#else
#define PGWEIR_MUTANT(n) false
#endif
