#include <stdio.h>

#include "opt_global.h"

extern const char version[];

int
main(void)
{
	printf("%s %s\n%s\n%s\n%s\n", version, IDENT, OPTIONS, DEVICES, __FILE__);
	return (0);
}
