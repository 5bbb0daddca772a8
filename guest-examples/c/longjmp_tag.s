# The exception tag that setjmp and longjmp use; the libc that zig brings only refers to it.
	.globl	__c_longjmp
	.tagtype	__c_longjmp i32
__c_longjmp:
