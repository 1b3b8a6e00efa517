// The step for any processor: built without vectorisation.
#define ADAMAS_ISA kScalar
#define ADAMAS_ISA_NAME "scalar"
#include "isa.inc"
