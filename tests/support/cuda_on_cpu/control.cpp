// What tests ask of the emulation beside the library's own functions.
#include <fibers.h>

extern "C" void emulated_reverse_order(int is_reverse) { emulated::set_reverse_order(is_reverse != 0); }
