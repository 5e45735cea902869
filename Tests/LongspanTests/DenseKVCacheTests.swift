import Longspan
import LongspanKernels
import Testing

@Suite struct DenseKVCacheTests {
  /// Stores one token in every layer, with numbers that tell its layer, kind, head and position.
  private func append(_ cache: inout DenseKVCache, on context: KernelContext) throws {
    try cache.reserve(1)
    let position = cache.count
    for layer in 0..<cache.layers {
      for kind in 0..<2 {
        let row = (0..<cache.heads * cache.headDimension).map { index in
          Self.mark(layer, kind, index / cache.headDimension, position)
        }
        let view = try TensorView(row.span, tokens: 1, heads: cache.heads, columns: cache.headDimension)
        if kind == 0 {
          var slots = try cache.keySlots(layer: layer, count: 1)
          try context.convert(view, into: &slots)
        } else {
          var slots = try cache.valueSlots(layer: layer, count: 1)
          try context.convert(view, into: &slots)
        }
      }
    }
    try cache.commit(1)
  }

  private static func mark(_ layer: Int, _ kind: Int, _ head: Int, _ position: Int) -> Float {
    // below 256, so that bf16 holds it exactly
    Float(position % 16 + 16 * (head + 2 * (kind + 2 * layer)))
  }

  /// Checks every stored number through the views that attention reads.
  private func check(_ cache: borrowing DenseKVCache, on context: KernelContext) throws {
    let row = cache.heads * cache.headDimension
    for layer in 0..<cache.layers {
      for kind in 0..<2 {
        var floats = [Float](repeating: -1, count: cache.count * row)
        do {
          var span = floats.mutableSpan
          var output = try MutableTensorView(
            span.mutableBytes,
            TensorLayout(tokens: cache.count, heads: cache.heads, columns: cache.headDimension))
          if kind == 0 {
            try context.convert(cache.keys(layer: layer), into: &output)
          } else {
            try context.convert(cache.values(layer: layer), into: &output)
          }
        }
        let width = cache.headDimension
        let wrong = floats.indices.first { index in
          floats[index] != Self.mark(layer, kind, index % row / width, index / row)
        }
        #expect(wrong == nil, "layer \(layer), kind \(kind)")
      }
    }
  }

  @Test(arguments: ElementType.allCases) func keepsEveryTokenWhenItGrows(type: ElementType) throws {
    let context = try KernelContext(threads: 1)
    var cache = try DenseKVCache(layers: 2, heads: 2, headDimension: 8, elementType: type, capacity: 1)
    #expect(cache.capacity == 1024)
    for _ in 0..<1500 { try append(&cache, on: context) }
    #expect(cache.count == 1500)
    #expect(cache.capacity == 2048)
    try check(cache, on: context)
    try cache.reserve(9000)
    #expect(cache.capacity >= 10500)
    try check(cache, on: context)
    #expect(cache.byteCount == 1500 * 2 * 2 * 2 * 8 * type.byteCount)
  }

  @Test func uncommittedTokensAreOverwritten() throws {
    let context = try KernelContext(threads: 1)
    var cache = try DenseKVCache(layers: 1, heads: 2, headDimension: 8)
    for _ in 0..<3 { try append(&cache, on: context) }
    try cache.truncate(to: 1)
    #expect(cache.count == 1)
    for _ in 0..<4 { try append(&cache, on: context) }
    try check(cache, on: context)
  }

  /// A reservation of twice the machine's memory can only stand if its pages are not taken yet.
  @Test func memoryIsTakenOnlyForStoredTokens() throws {
    let context = try KernelContext(threads: 1)
    let bytesPerToken = 8 * 2 * 8 * 128 * 4
    let tokens = 2 * (try MachineTopology().memoryBytes) / bytesPerToken
    var cache = try DenseKVCache(layers: 8, heads: 8, headDimension: 128, capacity: tokens)
    #expect(cache.bytesPerToken == bytesPerToken)
    try append(&cache, on: context)
    #expect(cache.byteCount == bytesPerToken)
  }

  @Test func refusesWhatCannotBe() throws {
    #expect(throws: LongspanError.self) { _ = try DenseKVCache(layers: 0, heads: 1, headDimension: 8) }
    #expect(throws: LongspanError.self) { _ = try DenseKVCache(layers: 1, heads: 1, headDimension: 12) }
    #expect(throws: LongspanError.self) {
      _ = try DenseKVCache(layers: 1, heads: 1, headDimension: 8, capacity: Int.max)
    }
    var cache = try DenseKVCache(layers: 1, heads: 1, headDimension: 8)
    let error = #expect(throws: LongspanError.self) { try cache.reserve(1 << 45) }
    #expect(error?.code == .insufficientMemory)
    #expect(throws: LongspanError.self) { try cache.reserve(Int.max) }
    #expect(throws: LongspanError.self) { try cache.reserve(-1) }
    #expect(throws: LongspanError.self) { try cache.commit(8193) }
    #expect(throws: LongspanError.self) { try cache.truncate(to: 1) }
    #expect(throws: LongspanError.self) { _ = try cache.keys(layer: 1) }
    #expect(throws: LongspanError.self) { _ = try cache.keys(layer: 0, including: 8193) }
    #expect(cache.count == 0 && cache.capacity == 8192)
  }
}
