// The step for x86-64 with AVX2.
#define ADAMAS_ISA kAvx2
#define ADAMAS_ISA_NAME "avx2"
#include "isa.inc"
