import LongspanKernels
import Testing

@Suite struct MemoryTests {
  @Test(arguments: [0, 1, 4095, 4096, 3 << 20]) func buffersAreZeroedAndWritable(count: Int) throws {
    var buffer = try AlignedBuffer<UInt8>(count: count)
    #expect(buffer.count == count)
    let clear = (0..<count).allSatisfy { buffer.span[$0] == 0 }
    #expect(clear)
    var span = buffer.mutableSpan
    for index in 0..<count { span[index] = UInt8(truncatingIfNeeded: index) }
    let kept = (0..<count).allSatisfy { buffer.span[$0] == UInt8(truncatingIfNeeded: $0) }
    #expect(kept)
  }

  @Test func largeBuffersStartOnAHugePage() throws {
    let buffer = try AlignedBuffer<Float>(count: 1 << 20)
    let address = buffer.span.withUnsafeBufferPointer { UInt(bitPattern: $0.baseAddress) }
    #expect(address % (2 << 20) == 0)
  }

  @Test(arguments: [-1, Int.max, Int.max / 2]) func impossibleBuffersAreRefused(count: Int) {
    #expect(throws: LongspanError.self) { _ = try AlignedBuffer<Float>(count: count) }
  }

  @Test func pagesMoveWithTheirContent() throws {
    let page = ReservedMemory.roundedUpToPages(1)
    let source = try ReservedMemory(byteCount: 4 * page)
    let target = try ReservedMemory(byteCount: 8 * page)
    try source.withMutableBytes(page..<3 * page) { bytes throws(LongspanError) in
      for offset in 0..<2 * page {
        bytes.storeBytes(of: UInt8(truncatingIfNeeded: offset / 7), toByteOffset: offset, as: UInt8.self)
      }
    }
    try target.move(2 * page, from: source, at: page, to: 5 * page)
    let moved = try target.bytes(5 * page..<7 * page)
    let kept = (0..<2 * page).allSatisfy {
      moved.unsafeLoad(fromByteOffset: $0, as: UInt8.self) == UInt8(truncatingIfNeeded: $0 / 7)
    }
    #expect(kept)
    let copy = try ReservedMemory(byteCount: 4 * page)
    try copy.copy(100, from: target, at: 5 * page + 7, to: 3)
    let copied = try copy.bytes(0..<104)
    #expect(copied.unsafeLoad(fromByteOffset: 2, as: UInt8.self) == 0)
    #expect(
      (0..<100).allSatisfy {
        copied.unsafeLoad(fromByteOffset: 3 + $0, as: UInt8.self) == UInt8(($0 + 7) / 7)
      })
    #expect(copied.unsafeLoad(fromByteOffset: 103, as: UInt8.self) == 0)
    #expect(throws: LongspanError.self) { try copy.copy(page, from: target, at: 7 * page + 1, to: 0) }
  }

  @Test(arguments: [(1, 4, 0), (1, 0, Int.max / 4096), (0.5, 0, 0), (1, -1, 0)])
  func movesOutsideAReservationAreRefused(pages: Double, from: Int, to: Int) throws {
    let page = ReservedMemory.roundedUpToPages(1)
    let source = try ReservedMemory(byteCount: 4 * page)
    let target = try ReservedMemory(byteCount: 8 * page)
    var refused = false
    do {
      try target.move(Int(pages * Double(page)), from: source, at: from * page, to: to * page)
    } catch {
      refused = true
    }
    #expect(refused)
  }

  @Test func knowsTheProcessAndTheMachine() throws {
    let available = try #require(SystemMemory.availableBytes)
    let resident = try #require(SystemMemory.residentBytes)
    let peak = try #require(SystemMemory.peakResidentBytes)
    #expect(available > 0 && resident > 0 && peak >= resident / 2)
    #expect(throws: Never.self) { try SystemMemory.require(1, for: "a byte") }
    let error = #expect(throws: LongspanError.self) { try SystemMemory.require(1 << 60, for: "an exbibyte") }
    #expect(error?.message.hasPrefix("an exbibyte would take 1.0 EiB, but only") == true)
    #expect(SystemMemory.describe(1023) == "1023 bytes")
    #expect(SystemMemory.describe(1536) == "1.5 KiB")
  }
}
