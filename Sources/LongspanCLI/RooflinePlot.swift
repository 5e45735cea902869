import Foundation
import LongspanKernels
import LongspanMeasure

/// A roofline plot (Williams et al. 2009) as SVG: FLOP/s over FLOPs a byte, both in powers of ten, under the ceilings
/// that were measured in the same run.
struct RooflinePlot {
  private let rows: [BenchmarkRow]
  private let omitted: Int
  private let teams: [MachineCeilings.Team]
  private let xRange: ClosedRange<Double>
  private let yRange: ClosedRange<Double>

  private static let width = 1240.0
  private static let plotRight = 760.0
  private static let left = 72.0
  private static let top = 44.0
  private static let bottom = 56.0
  private static let minimumHeight = 560.0
  private static let legendStep = 14.0

  /// Rows without FLOPs have no place over a logarithmic axis and are only counted.
  init(rows: [BenchmarkRow], ceilings: MachineCeilings) {
    self.rows = rows.filter { $0.flops > 0 && $0.bytes > 0 }
    omitted = rows.count - self.rows.count
    let used = Set(rows.map(\.threads))
    let teams = ceilings.teams.filter { used.contains($0.threads) }
    self.teams = teams
    let highest = teams.map { max($0.fmaF32.best, $0.fmaBF16?.best ?? 0) * 1e-9 }.max() ?? 1
    let rates = self.rows.map { $0.flopsPerSecond * 1e-9 }
    let intensities = self.rows.map(\.intensity)
    xRange = Self.decades(around: intensities + [0.1, 100])
    yRange = Self.decades(around: rates + [highest, highest / 100])
  }

  func write(to path: String) throws(LongspanError) {
    try OutputFile.write(svg, to: path)
  }

  private var height: Double {
    max(Self.minimumHeight, Self.top + Double(rows.count + 2) * Self.legendStep + Self.bottom)
  }

  var svg: String {
    var parts = [
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 \(Int(Self.width)) \(Int(height))\" "
        + "font-family=\"sans-serif\" font-size=\"12\">",
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>",
      "<text x=\"\(Self.left)\" y=\"24\" font-size=\"15\">Roofline: cold in blue, warm in orange"
        + (omitted > 0 ? " (\(omitted) rows without FLOPs left out)" : "") + "</text>",
    ]
    parts += grid
    for (index, team) in teams.enumerated() { parts += roofs(of: team, isLargest: index == teams.count - 1) }
    parts += dots
    return (parts + ["</svg>"]).joined(separator: "\n") + "\n"
  }

  // MARK: - Parts

  private var grid: [String] {
    var parts: [String] = []
    for power in Int(xRange.lowerBound)...Int(xRange.upperBound) {
      let at = decimal(x(pow(10, Double(power))), 1)
      parts.append(
        "<line x1=\"\(at)\" x2=\"\(at)\" y1=\"\(Self.top)\" y2=\"\(height - Self.bottom)\" stroke=\"#ddd\"/>")
      parts.append(
        "<text x=\"\(at)\" y=\"\(height - Self.bottom + 18)\" text-anchor=\"middle\">\(Self.power(power))</text>"
      )
    }
    for power in Int(yRange.lowerBound)...Int(yRange.upperBound) {
      let at = decimal(y(pow(10, Double(power))), 1)
      parts.append(
        "<line x1=\"\(Self.left)\" x2=\"\(Self.plotRight)\" y1=\"\(at)\" y2=\"\(at)\" stroke=\"#ddd\"/>")
      parts.append("<text x=\"\(Self.left - 8)\" y=\"\(at)\" text-anchor=\"end\">\(Self.power(power))</text>")
    }
    parts.append(
      "<text x=\"\((Self.left + Self.plotRight) / 2)\" y=\"\(height - 12)\" text-anchor=\"middle\">"
        + "arithmetic intensity, FLOP a byte</text>")
    parts.append(
      "<text x=\"18\" y=\"\(height / 2)\" text-anchor=\"middle\" transform=\"rotate(-90 18 \(height / 2))\">"
        + "GFLOP/s</text>")
    return parts
  }

  /// Each memory level's slope up to the highest peak, and each peak from where L2 could feed it.
  private func roofs(of team: MachineCeilings.Team, isLargest: Bool) -> [String] {
    let peaks: [(String, MachineCeilings.Rate?)] = [("f32", team.fmaF32), ("bf16", team.fmaBF16)]
    let slopes = [("DRAM", team.dram, "#1f77b4"), ("L3", team.l3, "#2ca02c"), ("L2", team.l2, "#9467bd")]
    let highest = max(team.fmaF32.best, team.fmaBF16?.best ?? 0)
    let dash = isLargest ? "" : " stroke-dasharray=\"5 4\""
    let threads = teams.count > 1 ? ", \(team.threads) thr." : ""
    let least = pow(10, xRange.lowerBound)
    let most = pow(10, xRange.upperBound)
    var parts: [String] = []
    for (name, rate, color) in slopes where rate.best > 0 {
      // the part of the slope that lies within the plot
      let first = max(least, pow(10, yRange.lowerBound) * 1e9 / rate.best)
      let end = min(most, highest / rate.best)
      guard first < end else { continue }
      parts.append(line(first, first * rate.best * 1e-9, end, end * rate.best * 1e-9, color, dash))
      parts.append(
        label(
          "\(name) \(decimal(rate.best * 1e-9, 0)) GB/s\(threads)", first, first * rate.best * 1e-9, color))
    }
    for (name, rate) in peaks {
      guard let rate, rate.best > 0, team.l2.best > 0 else { continue }
      let first = max(least, rate.best / team.l2.best)
      guard first < most else { continue }
      parts.append(line(first, rate.best * 1e-9, most, rate.best * 1e-9, "#d62728", dash))
      parts.append(
        "<text x=\"\(Self.plotRight - 4)\" y=\"\(decimal(y(rate.best * 1e-9) - 4, 1))\" text-anchor=\"end\" "
          + "fill=\"#d62728\">\(name) \(decimal(rate.best * 1e-9, 0)) GFLOP/s\(threads)</text>")
    }
    return parts
  }

  /// A numbered dot a row, and beside the plot what each number is.
  private var dots: [String] {
    var parts: [String] = []
    for (index, row) in rows.enumerated() {
      let at = (x(row.intensity), y(row.flopsPerSecond * 1e-9))
      let color = row.cache == .cold ? "#1f77b4" : "#ff7f0e"
      let shape = row.shape.sorted { $0.key < $1.key }.filter { $0.value != 0 || $0.key != "window" }
        .map { "\($0.key)=\($0.value)" }.joined(separator: " ")
      let text =
        "\(index + 1) \(row.name) \(row.dtype) \(row.cache.rawValue) \(shape), \(row.threads) thr.: "
        + decimal(row.fractionOfCeiling, 2)
      parts.append(
        "<circle cx=\"\(decimal(at.0, 1))\" cy=\"\(decimal(at.1, 1))\" r=\"3.5\" fill=\"\(color)\">"
          + "<title>\(text.escapedForXML)</title></circle>")
      parts.append(
        "<text x=\"\(decimal(at.0 + 5, 1))\" y=\"\(decimal(at.1 - 4, 1))\" font-size=\"9\">\(index + 1)</text>"
      )
      parts.append(
        "<text x=\"\(Self.plotRight + 16)\" y=\"\(Self.top + Double(index) * Self.legendStep)\" font-size=\"10\" "
          + "fill=\"\(color)\">\(text.escapedForXML)</text>")
    }
    return parts
  }

  // MARK: - Geometry

  private func x(_ value: Double) -> Double {
    let share = (log10(value) - xRange.lowerBound) / (xRange.upperBound - xRange.lowerBound)
    return Self.left + share * (Self.plotRight - Self.left)
  }

  private func y(_ value: Double) -> Double {
    let share = (log10(value) - yRange.lowerBound) / (yRange.upperBound - yRange.lowerBound)
    return height - Self.bottom - share * (height - Self.top - Self.bottom)
  }

  private func line(
    _ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, _ color: String, _ dash: String
  ) -> String {
    "<line x1=\"\(decimal(x(x1), 1))\" y1=\"\(decimal(y(y1), 1))\" x2=\"\(decimal(x(x2), 1))\" "
      + "y2=\"\(decimal(y(y2), 1))\" stroke=\"\(color)\" stroke-width=\"1.5\"\(dash)/>"
  }

  private func label(_ text: String, _ atX: Double, _ atY: Double, _ color: String) -> String {
    "<text x=\"\(decimal(x(atX) + 8, 1))\" y=\"\(decimal(y(atY) - 8, 1))\" fill=\"\(color)\">\(text)</text>"
  }

  /// Whole powers of ten around all values.
  private static func decades(around values: [Double]) -> ClosedRange<Double> {
    let least = floor(log10(values.min() ?? 0.1))
    return least...max(least + 1, ceil(log10(values.max() ?? 1)))
  }

  private static func power(_ power: Int) -> String {
    power >= 0 ? decimal(pow(10, Double(power)), 0) : decimal(pow(10, Double(power)), -power)
  }
}
