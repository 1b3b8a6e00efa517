// The step for x86-64 with AVX-512 F, BW, DQ and VL.
#define ADAMAS_ISA kAvx512
#define ADAMAS_ISA_NAME "avx512"
#include "isa.inc"
