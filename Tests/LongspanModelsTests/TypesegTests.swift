import Foundation
import LongspanKernels
import Testing

/// A trained network, run over the kernels: the bidirectional Mamba of the package typeseg 0.2.7, which tells the kind of each
/// byte of a file. Its steps, decays and inputs are real ones, from far below 1 to above 10.
@Suite struct TypesegTests {
  /// Where `Tests/fetch-typeseg.sh` puts the weights.
  static let folder: String =
    ProcessInfo.processInfo.environment["LONGSPAN_TYPESEG"].flatMap { $0.isEmpty ? nil : $0 }
    ?? TestFiles.packageRoot.appending(path: ".build/models/typeseg").path

  static let isThere =
    ProcessInfo.processInfo.environment["CI"] == "true"
    || FileManager.default.fileExists(atPath: folder + "/mamba_al.npz")

  struct Case: Decodable, Sendable, CustomTestStringConvertible {
    struct Place: Decodable, Sendable {
      let offset: Int
      let count: Int
    }
    let file: String
    let latin1: String
    let logits: Place
    var testDescription: String { file }
  }

  static func cases() throws -> [Case] {
    struct File: Decodable { let cases: [Case] }
    return try TestFiles.json(File.self, "typeseg/typeseg.json").cases
  }

  @Test(.enabled(if: isThere, "needs the package typeseg: Tests/run.sh fetches it"), arguments: try cases())
  func givesItsOwnLogits(test: Case) throws {
    let network = try TypesegNetwork(folder: Self.folder)
    let bytes = test.latin1.unicodeScalars.map { UInt8($0.value) }
    let logits = try network.logits(of: bytes)
    let data = try Data(contentsOf: TestFiles.fixture("typeseg/typeseg.f32"))
    let all = data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
    let want = Array(all[test.logits.offset..<test.logits.offset + test.logits.count])
    #expect(logits.count == want.count)
    let largest = want.map(abs).max() ?? 0
    let difference = zip(logits, want).map { abs($0 - $1) }.max() ?? .infinity
    #expect(difference <= 1e-4 * largest, "\(test.file): \(difference) of \(largest)")
  }
}

/// The network; matrices are `[in, out]` in its files.
struct TypesegNetwork {
  private static let layers = 6
  private static let width = 256
  private static let states = 16
  private static let rank = 16
  private static let taps = 4

  private let folder: String
  private let context: KernelContext

  init(folder: String) throws {
    self.folder = folder
    context = try KernelContext(threads: 2)
  }

  /// Kinds' logits of each byte, `[bytes, 35]`.
  func logits(of bytes: [UInt8]) throws -> [Float] {
    let table = try array("Embed_0__embedding")
    // bytes from 128 on share an embedding
    var x = bytes.flatMap { byte -> ArraySlice<Float> in
      let row = min(Int(byte), 128)
      return table[row * Self.width..<(row + 1) * Self.width]
    }
    for layer in 0..<Self.layers { x = try block("CheckpointMambaBlock1D_\(layer)__", x, bytes.count) }
    return try dense("Dense_0__", try normalize("LayerNorm_0__", x, bytes.count), bytes.count)
  }

  private func block(_ name: String, _ x: [Float], _ count: Int) throws -> [Float] {
    let width = Self.width
    let mixed = try dense(name + "Dense_0__", try normalize(name + "LayerNorm_0__", x, count), count)
    let u = try convolve(name, part(mixed, count, 0..<width), count)
    let gate = part(mixed, count, width..<2 * width)
    let projected = try dense(name + "Dense_1__", u, count)
    let low = part(projected, count, 0..<Self.rank)
    let b = part(projected, count, Self.rank..<Self.rank + Self.states)
    let c = part(projected, count, Self.rank + Self.states..<Self.rank + 2 * Self.states)
    // softplus(dt) + 1e-4, which is no rule of the kernels
    let steps = try timeSteps(dense(name + "Dense_2__", low, count), count).map { $0 + 1e-4 }
    let decay = try array(name + "A_log").map { -exp($0) }
    let skip = try array(name + "D")
    let forward = try scan(u, steps, decay, b, c, skip, count)
    let backward = reversed(
      try scan(
        reversed(u, count), reversed(steps, count), decay, reversed(b, count), reversed(c, count), skip, count
      ),
      count)
    let gated = zip(zip(forward, backward), gate).map { ($0.0 + $0.1) * $1 / (1 + exp(-$1)) }
    return zip(x, try dense(name + "Dense_3__", gated, count)).map { $0 + $1 }
  }

  // MARK: Kernels

  private func normalize(_ name: String, _ x: [Float], _ count: Int) throws -> [Float] {
    let (weight, bias) = (try array(name + "scale"), try array(name + "bias"))
    return try filled(count * Self.width) { output throws(LongspanError) in
      try context.layerNorm(
        TensorView(x.span, tokens: count, columns: Self.width), weight: weight.span, bias: bias.span,
        epsilon: 1e-6,
        into: &output)
    }
  }

  private func dense(_ name: String, _ x: [Float], _ count: Int) throws -> [Float] {
    let (kernel, bias) = (try array(name + "kernel"), try array(name + "bias"))
    let (rows, columns) = (bias.count, kernel.count / bias.count)
    let transposed = (0..<rows * columns).map { kernel[$0 % columns * rows + $0 / columns] }
    let owner = NSData(bytes: transposed, length: transposed.count * 4)
    let weights = try WeightMatrix(
      .f32, rows: rows, columns: columns,
      bytes: UnsafeRawBufferPointer(start: owner.bytes, count: owner.length), owner: Owner(data: owner))
    var workspace = Workspace()
    let product = try filled(count * rows) { output throws(LongspanError) in
      try context.linear(
        TensorView(x.span, tokens: count, columns: columns), weights, workspace: &workspace, into: &output)
    }
    return product.indices.map { product[$0] + bias[$0 % rows] }
  }

  /// One row before and two after each: the causal convolution of two zero rows more, from the third output on.
  private func convolve(_ name: String, _ x: [Float], _ count: Int) throws -> [Float] {
    let kernel = try array(name + "Conv_0__kernel")
    let bias = try array(name + "Conv_0__bias")
    let weight = (0..<Self.width * Self.taps).map { kernel[$0 % Self.taps * Self.width + $0 / Self.taps] }
    let padded = x + [Float](repeating: 0, count: 2 * Self.width)
    var state = [Float](repeating: 0, count: (Self.taps - 1) * Self.width)
    let output = try filled(padded.count) { output throws(LongspanError) in
      var stateSpan = state.mutableSpan
      try context.causalConvolution(
        TensorView(padded.span, tokens: count + 2, columns: Self.width), weight: weight.span,
        width: Self.taps,
        bias: bias.span, appliesSiLU: true, state: &stateSpan, into: &output)
    }
    return Array(output[(2 * Self.width)...])
  }

  private func timeSteps(_ x: [Float], _ count: Int) throws -> [Float] {
    try filled(x.count) { output throws(LongspanError) in
      try context.timeSteps(
        of: TensorView(x.span, tokens: count, columns: Self.width), rule: TimeStepRule(appliesSoftplus: true),
        into: &output)
    }
  }

  private func scan(
    _ u: [Float], _ steps: [Float], _ decay: [Float], _ b: [Float], _ c: [Float], _ skip: [Float],
    _ count: Int
  ) throws -> [Float] {
    var state = [Float](repeating: 0, count: decay.count)
    var workspace = Workspace()
    return try filled(u.count) { output throws(LongspanError) in
      var stateSpan = state.mutableSpan
      try context.selectiveScan(
        .scan, input: TensorView(u.span, tokens: count, columns: Self.width),
        steps: TensorView(steps.span, tokens: count, columns: Self.width), rule: TimeStepRule(),
        decay: decay.span, b: TensorView(b.span, tokens: count, columns: Self.states),
        c: TensorView(c.span, tokens: count, columns: Self.states), skip: skip.span, gate: nil,
        state: &stateSpan,
        workspace: &workspace, into: &output)
    }
  }

  // MARK: Arrays

  private final class Owner: @unchecked Sendable {
    let data: NSData
    init(data: NSData) { self.data = data }
  }

  private func filled(
    _ count: Int, _ body: (inout MutableSpan<Float>) throws(LongspanError) -> Void
  ) throws -> [Float] {
    var output = [Float](repeating: 0, count: count)
    var span = output.mutableSpan
    try body(&span)
    return output
  }

  /// Some columns of each row.
  private func part(_ x: [Float], _ count: Int, _ columns: Range<Int>) -> [Float] {
    let width = x.count / count
    return (0..<count).flatMap { x[$0 * width + columns.lowerBound..<$0 * width + columns.upperBound] }
  }

  private func reversed(_ x: [Float], _ count: Int) -> [Float] {
    let width = x.count / count
    return (0..<count).reversed().flatMap { x[$0 * width..<($0 + 1) * width] }
  }

  /// The floats of an .npy file of version 1: a header whose length is at byte 8, then little-endian f32.
  private func array(_ name: String) throws -> [Float] {
    let data = try Data(contentsOf: URL(filePath: "\(folder)/\(name).npy"))
    let start = 10 + Int(data[8]) + 256 * Int(data[9])
    return data.dropFirst(start).withUnsafeBytes { bytes in
      (0..<bytes.count / 4).map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
    }
  }
}
