; An AVR program whose macros unfold to some hundred thousand lines.
        .section .text
        .global main

        .macro  routine label, number
\label\number:
        push    r17
        ldi     r17, (\number * 7) & 0xff
        eor     r16, r17
        sts     0x100 + \number, r16
        lds     r18, 0x100 + (\number ^ 1)
        add     r16, r18
        pop     r17
        ret
        .endm

        .altmacro
main:
        .set    counter, 0
        .rept   20000
        ldi     r16, lo8(counter)
        ldi     r17, hi8(counter)
        rjmp    .+2
        nop
        .set    counter, counter + 3
        .endr
        ret

        .macro  routines from
        .if \from
        routine f, %from
        routines %(from - 1)
        .endif
        .endm
        routines 40

        .section .rodata
table:
        .set    value, 1
        .rept   40000
        .word   value & 0xffff
        .set    value, value * 5 + 3
        .endr
        .ascii  "end of table"
