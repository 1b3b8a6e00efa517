// The step for 64-bit Arm.
#define ADAMAS_ISA kNeon
#define ADAMAS_ISA_NAME "neon"
#include "isa.inc"
